"""The gap of UDLM and Duo in three passes over three rows of scores, in Triton."""

import torch
import triton
import triton.language as tl

from idlm_ds.kernels.launch import launch_rows
from idlm_ds.kernels.online import log_ratio, normaliser, probability
from idlm_ds.tensor_types import Logits, PerPosition, Positions


def uniform_gap(
    student: Logits,
    teacher: Logits,
    fake: Logits,
    weight: PerPosition,
    alpha: PerPosition,
    floor: PerPosition,
    state: Positions,
    *,
    is_unbiased: bool = False,
) -> tuple[PerPosition, Logits]:
    """See ``reference.py``; the derivative is in the memory of ``student``."""
    scores, per_row = (student, teacher, fake), (weight, alpha, floor, state)
    nats = launch_rows(_uniform_gap, scores, per_row, dtype=torch.float64, IS_UNBIASED=is_unbiased)
    return nats, student


@triton.jit
def _uniform_gap(
    student,
    teacher,
    fake,
    weight,
    alpha,
    floor,
    state,
    nats,
    student_row,
    student_column,
    teacher_row,
    teacher_column,
    fake_row,
    fake_column,
    width,
    BLOCK: tl.constexpr,
    IS_UNBIASED: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    student += row * student_row
    teacher += row * teacher_row
    fake += row * fake_row
    here = tl.load(state + row)
    w, a, b = tl.load(weight + row), tl.load(alpha + row), tl.load(floor + row)
    ratio = a / b

    peak, whole = normaliser(student, student_column, width, BLOCK)
    peak_t, whole_t = normaliser(teacher, teacher_column, width, BLOCK)
    peak_f, whole_f = normaliser(fake, fake_column, width, BLOCK)
    g_i = probability(student, student_column, here, width, peak, whole).to(tl.float64)
    t_i = probability(teacher, teacher_column, here, width, peak_t, whole_t).to(tl.float64)
    f_i = probability(fake, fake_column, here, width, peak_f, whole_f).to(tl.float64)

    # The advantage, in place of the teacher's scores, and its sums. The entry of the state was
    # read by all threads; one of them overwrites it.
    tl.debug_barrier()
    r = ratio.to(peak.dtype)
    gain = tl.zeros((BLOCK,), student.dtype.element_ty)
    everywhere = tl.zeros((BLOCK,), student.dtype.element_ty)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        t = probability(teacher, teacher_column, column, width, peak_t, whole_t)
        f = probability(fake, fake_column, column, width, peak_f, whole_f)
        advantage = log_ratio(r, t, f)
        gain += probability(student, student_column, column, width, peak, whole) * advantage
        everywhere += advantage
        tl.store(teacher + column * teacher_column, advantage, mask=column < width)
    mean, sum_ = tl.sum(gain.to(tl.float64), 0), tl.sum(everywhere.to(tl.float64), 0)
    q_i = a * g_i + b
    difference = log_ratio(ratio, t_i, f_i) - (a * mean + b * sum_)
    inverse = ratio * (f_i - t_i) / ((1.0 + ratio * t_i) * (1.0 + ratio * f_i))
    tl.store(nats + row, w * (difference / q_i + inverse / b))

    # The derivative by G, through the inner product and at the state, then by scores.
    steep = -w * a / q_i
    at_state = steep * (-inverse / b if IS_UNBIASED else difference / q_i)
    average = (steep * mean + at_state * g_i).to(peak.dtype)
    steep, at_state = steep.to(peak.dtype), at_state.to(peak.dtype)
    tl.debug_barrier()
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        advantage = tl.load(teacher + column * teacher_column, mask=column < width, other=0.0)
        slope = probability(student, student_column, column, width, peak, whole) * (
            steep * advantage + tl.where(column == here, at_state, 0.0) - average
        )
        tl.store(student + column * student_column, slope, mask=column < width)
