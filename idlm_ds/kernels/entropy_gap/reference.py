"""The gap of SEDD and its derivative by the student's scores.

Shapes: R rows, V vocabulary entries.
"""

import math

import torch

from idlm_ds.kernels.long_rows import logsumexp
from idlm_ds.kernels.rows import FORBIDDEN, inner, softmax_, through_softmax_
from idlm_ds.tensor_types import Logits, PerPosition


def entropy_gap(
    student: Logits,
    teacher: Logits,
    fake: Logits,
    weight: PerPosition,
    mask_id: int,
    *,
    with_value: bool = True,
) -> tuple[PerPosition, Logits]:
    """Compute ``w (S_teacher - S_fake - <G, a>)`` and its derivative by the student's scores.

    G is the student's distribution over words, ``a`` the difference of raw scores and S the sum
    of ratios over the true sum, ``exp(score) / (V - 1)`` summed over words.

    Args:
        student: Raw scores (R, V); overwritten.
        teacher: Raw scores; overwritten.
        fake: Raw scores; overwritten.
        weight: Of each row in the loss.
        mask_id: The id that is no word.
        with_value: Whether the value is wanted; otherwise the sums, which do not depend on the
            student, are left out of it.

    Returns:
        The gap of each row in nats, and its derivative, in the memory of one argument.
    """
    sums = torch.zeros_like(weight)
    teacher[:, mask_id] = fake[:, mask_id] = student[:, mask_id] = FORBIDDEN
    if with_value:
        words = math.log(student.shape[1] - 1)
        normalisers = logsumexp(teacher), logsumexp(fake)
        sums = torch.sub(*((n - words).exp() for n in normalisers)).to(weight.dtype)
    advantage = teacher.sub_(fake)
    softmax_(student)
    mean = inner(student, advantage)
    slope = through_softmax_(advantage, student, mean).mul_(-weight[:, None])
    return weight * (sums - mean), slope
