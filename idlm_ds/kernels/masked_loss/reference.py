"""Cross-entropy of soft and hard targets and its derivative by the scores.

Shapes: R rows, V vocabulary entries.
"""

from idlm_ds.kernels.rows import FORBIDDEN, add_at_, inner, pick, softmax_
from idlm_ds.tensor_types import Logits, PerPosition, Positions


def soft_cross_entropy(
    raw: Logits, target: Logits, weight: PerPosition, mask_id: int
) -> tuple[PerPosition, Logits]:
    """Compute ``w (log Z - <G, raw>)`` and its derivative ``w (f - G)``.

    Args:
        raw: Scores of the network that learns (R, V); overwritten.
        target: Scores whose softmax G is the target; overwritten.
        weight: Of each row in the loss.
        mask_id: The id that is no word.

    Returns:
        The loss of each row in nats, and its derivative, in the memory of ``raw``.
    """
    raw[:, mask_id] = target[:, mask_id] = FORBIDDEN
    softmax_(target)
    expected = inner(target, raw)
    normaliser = softmax_(raw)
    return weight * (normaliser - expected), raw.sub_(target).mul_(weight[:, None])


def hard_cross_entropy(
    raw: Logits, target: Positions, weight: PerPosition, mask_id: int
) -> tuple[PerPosition, Logits]:
    """Compute ``-w log f`` of the target ids (R,) and its derivative.

    Args:
        raw: Scores of the network that learns (R, V); overwritten.
        target: The right ids.
        weight: Of each row in the loss.
        mask_id: The id that is no word.

    Returns:
        The loss of each row in nats, and its derivative, in the memory of ``raw``.
    """
    raw[:, mask_id] = FORBIDDEN
    expected = pick(raw, target)
    normaliser = softmax_(raw)
    slope = raw.mul_(weight[:, None])
    add_at_(slope, target, -weight)
    return weight * (normaliser - expected), slope
