"""Exact categorical draws in two levels: a block of the vocabulary, then an entry of it.

Shapes: R rows, V vocabulary entries, K blocks.
"""

import torch
from torch import Tensor

from idlm_ds.kernels.projection import blocks
from idlm_ds.tensor_types import PerPosition, Positions, Probs

BLOCK = 1024
"""Vocabulary entries of a block."""


def draw(probs: Probs, uniform: PerPosition) -> Positions:
    """Invert the cumulative distribution, in the order of the vocabulary.

    An entry is drawn if the uniform number, times the sum of the row, lies at or above the sum of
    the entries before it and below that sum with it. An entry of probability zero never is.

    Args:
        probs: Non-negative rows (R, V), which need not be normalised; none is all zero.
        uniform: One number in ``[0, 1)`` per row, float64.

    Returns:
        Ids of shape (R,).

    Precision: sums are float64, whatever the dtype of ``probs``. A sum of up to V terms is off by
    at most V roundings, 1e-11 of the whole; draws nearer to a boundary than that may differ
    between forms.
    """
    pieces = list(blocks(probs.shape[1], BLOCK))
    sums = torch.stack([probs[:, piece].sum(1, dtype=torch.float64) for piece in pieces], 1)
    target = uniform.double() * sums.sum(1)
    block = _first_above(sums, target)
    before = torch.where(torch.arange(len(pieces), device=probs.device) < block[:, None], sums, 0)
    entry = block[:, None] * BLOCK + torch.arange(BLOCK, device=probs.device)
    inside = probs.gather(1, entry.clamp(max=probs.shape[1] - 1)).double()
    inside = torch.where(entry < probs.shape[1], inside, 0)
    return block * BLOCK + _first_above(inside, target - before.sum(1))


def _first_above(values: Tensor, target: PerPosition) -> Positions:
    """Find the first positive value whose cumulative sum exceeds the target.

    Where rounding leaves none, it is the last positive value.
    """
    place = torch.arange(values.shape[1], device=values.device)
    is_above = (values > 0) & (values.cumsum(1) > target[:, None])
    first = torch.where(is_above, place, values.shape[1]).amin(1)
    last = torch.where(values > 0, place, 0).amax(1)
    return torch.minimum(first, last)
