"""The bound of UDLM and Duo for a soft target, and its derivative by the scores.

Shapes: R rows, V vocabulary entries.
"""

import torch

from idlm_ds.kernels.rows import add_at_, inner, panels, pick, softmax_, through_softmax_
from idlm_ds.tensor_types import Logits, PerPosition, Positions


def soft_uniform_loss(
    raw: Logits,
    target: Logits,
    weight: PerPosition,
    alpha: PerPosition,
    floor: PerPosition,
    state: Positions,
) -> tuple[PerPosition, Logits]:
    """Compute ``w / q_i [KL(q | q_f) + d - log d - 1]`` and its derivative by the scores.

    ``q = alpha G + floor`` is the noised distribution of the target, ``q_f`` that of the answer f,
    i the hard state and ``d = q_i / q_f,i``.

    Args:
        raw: Scores of the network that learns (R, V); overwritten.
        target: Scores whose softmax G is the target; overwritten.
        weight: ``-dalpha / (V alpha)`` of each row, float64.
        alpha: Survival probability, float64.
        floor: Least probability of a noised token, ``(1 - alpha) / V``, float64.
        state: The hard state, ids.

    Returns:
        The loss of each row in nats, float64, and its derivative, in the memory of one argument.
    """
    softmax_(target)
    softmax_(raw)
    ratio = alpha / floor
    r = ratio[:, None].to(raw.dtype)
    g_i, f_i = pick(target, state).double(), pick(raw, state).double()
    q_i = alpha * g_i + floor
    log_d = torch.log1p(ratio * g_i) - torch.log1p(ratio * f_i)
    # KL(q | q_f) = sum (alpha G + floor) log((1 + r G) / (1 + r f)), and -q / (1 + r f), which is
    # the derivative by f up to r, in place of the target.
    a, b = alpha[:, None].to(raw.dtype), floor[:, None].to(raw.dtype)
    divergence = torch.zeros_like(q_i)
    for panel in panels(raw.shape[1]):
        probs, answer = target[:, panel], raw[:, panel]
        q, lifted = a * probs + b, (r * answer).add_(1.0)
        least = (r * torch.minimum(probs, answer)).add_(1.0)
        step = (probs - answer).mul_(r)
        logs = torch.copysign(step.abs().div_(least).log1p_(), step)
        divergence += logs.mul_(q).sum(1)
        probs.copy_(q.div_(lifted).neg_())
    nats = weight / q_i * (divergence + torch.expm1(log_d) - log_d)
    # Derivative by f: r (-q_j + [j = i] (1 - d)) / (1 + r f_j).
    add_at_(target, state, -torch.expm1(log_d) / (1.0 + ratio * f_i))
    mean = inner(target, raw)
    scale = (weight / q_i * ratio)[:, None].to(raw.dtype)
    return nats, through_softmax_(target, raw, mean).mul_(scale)
