"""The gap of MDLM and its derivative by the student's scores.

Shapes: R rows, V vocabulary entries.
"""

import torch

from idlm_ds.kernels.long_rows import logsumexp
from idlm_ds.kernels.rows import FORBIDDEN, inner, softmax_, through_softmax_
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
    """Compute ``-w <G, a>`` and its derivative ``-w G (a - <G, a>)`` by the student's scores.

    G is the student's distribution over words and ``a`` the teacher's log-probabilities minus the
    fake's. The derivative does not change when a constant is added to ``a``, so it needs no
    normaliser.

    Args:
        student: Raw scores (R, V); overwritten.
        teacher: Raw scores; overwritten.
        fake: Raw scores; overwritten.
        weight: Of each row in the loss.
        mask_id: The id that is no word.
        with_value: Whether the value is wanted; otherwise it is known up to a constant that
            does not depend on the student.

    Returns:
        The gap of each row in nats, and its derivative, in the memory of one argument.
    """
    constant = torch.zeros_like(weight)
    teacher[:, mask_id] = fake[:, mask_id] = student[:, mask_id] = FORBIDDEN
    if with_value:
        constant = (logsumexp(fake) - logsumexp(teacher)).to(weight.dtype)
    advantage = teacher.sub_(fake)
    softmax_(student)
    mean = inner(student, advantage)
    slope = through_softmax_(advantage, student, mean).mul_(-weight[:, None])
    return -weight * (mean + constant), slope
