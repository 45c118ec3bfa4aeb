"""The gap of UDLM and Duo and its derivative by the student's scores.

Shapes: R rows, V vocabulary entries.
"""

import torch
from torch import Tensor

from idlm_ds.kernels.rows import add_at_, inner, panels, pick, softmax_, through_softmax_
from idlm_ds.tensor_types import Logits, PerPosition, Positions, Probs


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
    """Compute the difference of two bounds and its derivative by the student's scores.

    With ``q = alpha G + floor`` the noised distribution of the student's word, i the hard state
    and ``l = log(1 + alpha f / floor)`` of each network's answer f, the gap of a row is
    ``w / q_i [a_i - <q, a> + q_i / floor (exp(-l_teacher,i) - exp(-l_fake,i))]``, ``a`` being
    ``l_teacher - l_fake``.

    Args:
        student: Raw scores (R, V); overwritten.
        teacher: Raw scores; overwritten.
        fake: Raw scores; overwritten.
        weight: ``-dalpha / (V alpha)`` of each row, float64.
        alpha: Survival probability, float64.
        floor: Least probability of a noised token, ``(1 - alpha) / V``, float64.
        state: The hard state, ids.
        is_unbiased: Whether ``w / q_i`` is a constant to the derivative; else ``1 / q_i`` is
            differentiated, as published.

    Returns:
        The gap of each row in nats, float64, and its derivative, in the memory of one argument.
    """
    for raw in (student, teacher, fake):
        softmax_(raw)
    rows = weight, alpha, floor, state
    return gap_of_answers(student, teacher, fake, *rows, is_unbiased=is_unbiased)


def gap_of_answers(
    student: Probs,
    teacher: Probs,
    fake: Probs,
    weight: PerPosition,
    alpha: PerPosition,
    floor: PerPosition,
    state: Positions,
    *,
    is_unbiased: bool,
) -> tuple[PerPosition, Logits]:
    """Compute the same from distributions in place of scores."""
    ratio = alpha / floor
    # Advantage in place of the teacher; the three sums it enters.
    lift_teacher, lift_fake = (
        torch.log1p(ratio * pick(probs, state).double()) for probs in (teacher, fake)
    )
    everywhere = advantage_(teacher, fake, ratio)
    advantage, here = teacher, lift_teacher - lift_fake
    mean, g_i = inner(student, advantage).double(), pick(student, state).double()
    q_i = alpha * g_i + floor
    difference = here - (alpha * mean + floor * everywhere)
    inverse = torch.exp(-lift_teacher) - torch.exp(-lift_fake)
    nats = weight * (difference / q_i + inverse / floor)
    # Derivative by G: through the inner product everywhere; at the state through q_i, which is a
    # factor of the second term and, where the weight is differentiated, divides both.
    slope = -weight * alpha / q_i
    at_state = slope * (-inverse / floor if is_unbiased else difference / q_i)
    advantage.mul_(slope[:, None].to(advantage.dtype))
    add_at_(advantage, state, at_state)
    average = slope * mean + at_state * g_i
    return nats, through_softmax_(advantage, student, average.to(student.dtype))


def advantage_(teacher: Tensor, fake: Tensor, ratio: PerPosition) -> PerPosition:
    """Replace the teacher's probabilities by ``log (1 + r teacher) - log (1 + r fake)``.

    As the log1p of a difference over the smaller of both, it keeps its digits where the two
    hardly differ and where r is large.

    Returns:
        The sum of each row, float64.
    """
    r = ratio[:, None].to(teacher.dtype)
    total = torch.zeros(len(teacher), dtype=torch.float64, device=teacher.device)
    for panel in panels(teacher.shape[1]):
        t, f = teacher[:, panel], fake[:, panel]
        least = torch.minimum(t, f).mul_(r).add_(1.0)
        step = (t - f).mul_(r)
        t.copy_(torch.copysign(step.abs().div_(least).log1p_(), step))
        total += t.sum(1)
    return total
