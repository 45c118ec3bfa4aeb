"""The score entropy bound of SEDD and its derivative by the scores.

Shapes: R rows, V vocabulary entries.
"""

import math

import torch
from torch import Tensor

from idlm_ds.kernels.rows import FORBIDDEN, add_at_, panels, pick, softmax_
from idlm_ds.tensor_types import Logits, PerPosition, Positions


def soft_score_entropy(
    raw: Logits, target: Logits, weight: PerPosition, mask_id: int
) -> tuple[PerPosition, Logits]:
    """Compute ``w (S - 1 + <G, log G - score>)`` and its derivative ``w (ratio - G)``.

    Scores are ``raw - log(V - 1)``, ratios their exponentials and S the sum of these over words.

    Args:
        raw: Scores of the network that learns (R, V); overwritten.
        target: Scores whose softmax G is the target; overwritten.
        weight: Of each row in the loss.
        mask_id: The id that is no word.

    Returns:
        The loss of each row in nats, and its derivative, in the memory of ``raw``.
    """
    target[:, mask_id] = FORBIDDEN
    score = _scaled_(raw, mask_id)
    normaliser = softmax_(target)
    # <G, log G> before the scores are exponentiated; logarithms of zero are bounded.
    tiny = torch.finfo(target.dtype).tiny
    expected = torch.zeros_like(normaliser)
    for panel in panels(raw.shape[1]):
        probs = target[:, panel]
        logs = probs.clamp(min=tiny).log_()
        expected += logs.sub_(score[:, panel]).mul_(probs).sum(1)
    ratios = score.exp_()
    misfit = ratios.sum(1) - 1.0
    return weight * (expected + misfit), ratios.sub_(target).mul_(weight[:, None])


def hard_score_entropy(
    raw: Logits, target: Positions, weight: PerPosition, mask_id: int
) -> tuple[PerPosition, Logits]:
    """Compute ``w (S - 1 - score)`` of the target ids (R,) and its derivative.

    Args:
        raw: Scores of the network that learns (R, V); overwritten.
        target: The right ids.
        weight: Of each row in the loss.
        mask_id: The id that is no word.

    Returns:
        The loss of each row in nats, and its derivative, in the memory of ``raw``.
    """
    score = _scaled_(raw, mask_id)
    expected = pick(score, target)
    ratios = score.exp_()
    misfit = ratios.sum(1) - 1.0
    slope = ratios.mul_(weight[:, None])
    add_at_(slope, target, -weight)
    return weight * (misfit - expected), slope


def _scaled_(raw: Logits, mask_id: int) -> Tensor:
    score = raw.sub_(math.log(raw.shape[1] - 1))
    score[:, mask_id] = FORBIDDEN
    return score
