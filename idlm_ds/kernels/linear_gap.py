"""The gaps of MDLM and SEDD, both linear in the student's distribution, in Triton.

Two passes over three rows of scores: averages under the student, then the derivative.
"""

import torch
import triton
import triton.language as tl

from idlm_ds.kernels.launch import launch_rows
from idlm_ds.kernels.online import LOWEST, grow, join
from idlm_ds.tensor_types import Logits, PerPosition


def linear_gap(
    student: Logits,
    teacher: Logits,
    fake: Logits,
    weight: PerPosition,
    mask_id: int,
    *,
    is_normalised: bool,
    with_value: bool,
) -> tuple[PerPosition, Logits]:
    """Compute ``w (c - <G, teacher - fake>)`` and its derivative by the student's scores.

    Args:
        student: Raw scores (R, V); overwritten by the derivative.
        teacher: Raw scores.
        fake: Raw scores.
        weight: Of each row in the loss.
        mask_id: The id that is no word.
        is_normalised: Whether c is the difference of log normalisers, as for MDLM; otherwise it is
            the difference of sums of ratios, as for SEDD.
        with_value: Whether c is computed at all.
    """
    settings = {"IS_NORMALISED": is_normalised, "WITH_VALUE": with_value}
    scores = (student, teacher, fake)
    nats = launch_rows(_linear_gap, scores, (weight,), mask_id, dtype=student.dtype, **settings)
    return nats.to(torch.result_type(weight, student)), student


@triton.jit
def _linear_gap(
    student,
    teacher,
    fake,
    weight,
    nats,
    student_row,
    student_column,
    teacher_row,
    teacher_column,
    fake_row,
    fake_column,
    width,
    mask_id,
    IS_NORMALISED: tl.constexpr,
    WITH_VALUE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    student += row * student_row
    teacher += row * teacher_row
    fake += row * fake_row
    lanes = tl.arange(0, BLOCK)

    zeros = tl.zeros((BLOCK,), student.dtype.element_ty)
    top, total, gain = zeros + LOWEST, zeros, zeros
    top_teacher, total_teacher = zeros + LOWEST, zeros
    top_fake, total_fake = zeros + LOWEST, zeros
    excess = zeros
    words = tl.log((width - 1).to(tl.float64)).to(zeros.dtype)
    for first in range(0, width, BLOCK):
        column = first + lanes
        is_word = (column < width) & (column != mask_id)
        s = tl.load(student + column * student_column, mask=is_word, other=LOWEST)
        t = tl.load(teacher + column * teacher_column, mask=is_word, other=LOWEST)
        f = tl.load(fake + column * fake_column, mask=is_word, other=LOWEST)
        top, total, shrink, exps = grow(top, total, s)
        gain = gain * shrink + exps * (t - f)
        if WITH_VALUE and IS_NORMALISED:
            top_teacher, total_teacher, _, _ = grow(top_teacher, total_teacher, t)
            top_fake, total_fake, _, _ = grow(top_fake, total_fake, f)
        if WITH_VALUE and not IS_NORMALISED:
            excess += tl.exp(t - words) - tl.exp(f - words)
    peak, whole, share = join(top, total)
    mean = tl.sum(gain * share, 0)
    w = tl.load(weight + row).to(zeros.dtype)
    constant = tl.sum(excess, 0)
    if WITH_VALUE and IS_NORMALISED:
        peak_teacher, whole_teacher, _ = join(top_teacher, total_teacher)
        peak_fake, whole_fake, _ = join(top_fake, total_fake)
        constant = peak_teacher - peak_fake + tl.log(whole_teacher / whole_fake)
    tl.store(nats + row, w * (constant - mean))

    scale = -w / whole
    for first in range(0, width, BLOCK):
        column = first + lanes
        is_word = (column < width) & (column != mask_id)
        s = tl.load(student + column * student_column, mask=is_word, other=LOWEST)
        t = tl.load(teacher + column * teacher_column, mask=is_word, other=LOWEST)
        f = tl.load(fake + column * fake_column, mask=is_word, other=LOWEST)
        slope = scale * tl.exp(s - peak) * (t - f - mean)
        tl.store(student + column * student_column, slope, mask=column < width)
