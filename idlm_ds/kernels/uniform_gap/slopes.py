"""The gap of UDLM and Duo and its derivatives by the scores of all three networks.

It has no form in Triton. Shapes: R rows, V vocabulary entries.
"""

import torch

from idlm_ds.kernels.rows import add_at_, inner, panels, pick, softmax_, through_softmax_
from idlm_ds.kernels.uniform_gap.reference import gap_of_answers
from idlm_ds.tensor_types import Logits, PerPosition, Positions


def uniform_gap_slopes(
    student: Logits,
    teacher: Logits,
    fake: Logits,
    weight: PerPosition,
    alpha: PerPosition,
    floor: PerPosition,
    state: Positions,
    *,
    is_unbiased: bool = False,
    room: tuple[Logits, Logits],
) -> tuple[PerPosition, Logits, Logits, Logits]:
    """Compute the gap and its derivatives by the scores of student, teacher and fake.

    The derivative by a network's answer f is, up to ``w r / q_i`` and the network's sign,
    ``(-q_j + [j = i] (1 - d)) / (1 + r f_j)`` with ``d = q_i / q_f,i`` and r = ``alpha / floor``.

    Args:
        student: See ``uniform_gap``.
        teacher: See there.
        fake: See there.
        weight: See there.
        alpha: See there.
        floor: See there.
        state: See there.
        is_unbiased: See there.
        room: Two more blocks of memory.

    Returns:
        The gap of each row in nats, float64, and the three derivatives.
    """
    softmax_(student)
    ratio, g_i = alpha / floor, pick(student, state).double()
    q_i = alpha * g_i + floor
    r, a, b = (x[:, None].to(student.dtype) for x in (ratio, alpha, floor))
    slopes = []
    for network, sign, out in ((teacher, 1.0, room[0]), (fake, -1.0, room[1])):
        softmax_(network)
        for panel in panels(network.shape[1]):
            q = torch.addcmul(b, student[:, panel], a)
            torch.div(q, (network[:, panel] * r).add_(1.0), out=out[:, panel]).neg_()
        f_i = pick(network, state).double()
        lifted = 1.0 + ratio * f_i
        add_at_(out, state, (1.0 - (1.0 + ratio * g_i) / lifted) / lifted)
        scale = (sign * weight * ratio / q_i)[:, None].to(out.dtype)
        slopes.append(through_softmax_(out, network, inner(out, network)).mul_(scale))
    rows = weight, alpha, floor, state
    nats, by_student = gap_of_answers(student, teacher, fake, *rows, is_unbiased=is_unbiased)
    return nats, by_student, slopes[0], slopes[1]
