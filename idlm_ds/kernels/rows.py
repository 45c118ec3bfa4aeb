"""What the reference operators share: functions of rows of scores that need no second copy.

Shapes: R rows of a block, V vocabulary entries. A row may be a column in memory; see
``ScoreRows.buffer``.
"""

from collections.abc import Iterator

import torch

from idlm_ds.tensor_types import Logits, PerPosition, Positions, Probs

FORBIDDEN = -1e6
"""Score of the mask. Finite: minus infinity times a zero target would be NaN."""

PARTS = 16
"""A temporary has at most this part of a block."""


def panels(vocab_size: int) -> Iterator[slice]:
    """Cut the vocabulary into parts."""
    size = -(-vocab_size // PARTS)
    return (slice(start, start + size) for start in range(0, vocab_size, size))


def softmax_(raw: Logits) -> PerPosition:
    """Turn scores into probabilities in place, and return their normaliser in nats (R,)."""
    top = raw.amax(1, keepdim=True)
    raw.sub_(top).exp_()
    total = raw.sum(1, keepdim=True)
    raw.div_(total)
    return (top + total.log())[:, 0]


def inner(a: Logits, b: Logits) -> PerPosition:
    """Sum products over the vocabulary (R,)."""
    total = torch.zeros(len(a), dtype=a.dtype, device=a.device)
    for panel in panels(a.shape[1]):
        total += (a[:, panel] * b[:, panel]).sum(1)
    return total


def pick(rows: Logits, ids: Positions) -> PerPosition:
    """Return one entry of each row (R,)."""
    return rows.gather(1, ids[:, None])[:, 0]


def add_at_(rows: Logits, ids: Positions, values: PerPosition) -> None:
    """Add a number to one entry of each row, in place."""
    rows.scatter_add_(1, ids[:, None], values[:, None].to(rows.dtype))


def through_softmax_(slope: Probs, probs: Probs, mean: PerPosition) -> Logits:
    """Turn a derivative by probabilities into one by scores, in place.

    Args:
        slope: The derivative (R, V); overwritten.
        probs: The probabilities.
        mean: The average of ``slope`` under them (R,).
    """
    return slope.sub_(mean[:, None]).mul_(probs)
