"""The gap of MDLM and its derivative in two passes over three rows of scores, in Triton."""

import torch
import triton
import triton.language as tl

from idlm_ds.kernels.launch import launch, tile
from idlm_ds.kernels.online import LOWEST, grow, join
from idlm_ds.tensor_types import Logits, PerPosition


def masked_gap(
    student: Logits,
    teacher: Logits,
    fake: Logits,
    weight: PerPosition,
    mask_id: int,
    *,
    with_value: bool = True,
) -> tuple[PerPosition, Logits]:
    """See ``reference.py``; the derivative is in the memory of ``student``."""
    rows, width = student.shape
    nats = torch.empty(rows, dtype=student.dtype, device=student.device)
    launch(
        _masked_gap,
        (rows,),
        *(student, teacher, fake, weight.contiguous(), nats),
        *(*student.stride(), *teacher.stride(), *fake.stride()),
        *(width, mask_id),
        WITH_VALUE=with_value,
        BLOCK=tile(width),
        num_warps=4,
    )
    return nats.to(torch.result_type(weight, student)), student


@triton.jit
def _masked_gap(
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
    WITH_VALUE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    student += row * student_row
    teacher += row * teacher_row
    fake += row * fake_row
    lanes = tl.arange(0, BLOCK)

    # Normalisers, and the advantage under the student.
    zeros = tl.zeros((BLOCK,), student.dtype.element_ty)
    top, total, gain = zeros + LOWEST, zeros, zeros
    top_teacher, total_teacher = zeros + LOWEST, zeros
    top_fake, total_fake = zeros + LOWEST, zeros
    for first in range(0, width, BLOCK):
        column = first + lanes
        is_word = (column < width) & (column != mask_id)
        s = tl.load(student + column * student_column, mask=is_word, other=LOWEST)
        t = tl.load(teacher + column * teacher_column, mask=is_word, other=LOWEST)
        f = tl.load(fake + column * fake_column, mask=is_word, other=LOWEST)
        top, total, shrink, exps = grow(top, total, s)
        gain = gain * shrink + exps * (t - f)
        if WITH_VALUE:
            top_teacher, total_teacher, _, _ = grow(top_teacher, total_teacher, t)
            top_fake, total_fake, _, _ = grow(top_fake, total_fake, f)
    normaliser, share = join(top, total)
    mean = tl.sum(gain * share, 0)
    w = tl.load(weight + row).to(mean.dtype)
    value = mean
    if WITH_VALUE:
        value += join(top_fake, total_fake)[0] - join(top_teacher, total_teacher)[0]
    tl.store(nats + row, -w * value)

    # The derivative.
    for first in range(0, width, BLOCK):
        column = first + lanes
        is_word = (column < width) & (column != mask_id)
        s = tl.load(student + column * student_column, mask=is_word, other=LOWEST)
        t = tl.load(teacher + column * teacher_column, mask=is_word, other=LOWEST)
        f = tl.load(fake + column * fake_column, mask=is_word, other=LOWEST)
        slope = -w * tl.exp(s - normaliser) * (t - f - mean)
        tl.store(student + column * student_column, slope, mask=column < width)
