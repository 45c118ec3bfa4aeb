"""Sums, maxima and searches in rows as long as a vocabulary, wherever they lie in memory.

Rows are cut into stretches, so that each row is read once and none is copied. A block of scores
on a CPU has its rows as columns in memory; reducing over neighbours in a column would be ten times
slower than reducing it as it lies.

Shapes: R rows, V entries, S stretches.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

STRETCH = 32
"""Entries that are reduced in the precision of a row before anything is widened to float64."""

PANEL = 4096
"""Entries of a row of which a temporary is made at a time."""

PART = 2**20
"""Entries of rows that are worked on at a time where whole copies are made of them."""

LongRows: TypeAlias = Float[Tensor, "R V"]
Each: TypeAlias = Float64[Tensor, " R"]
Entries: TypeAlias = Int[Tensor, " R"]


def row_sums(values: LongRows) -> Each:
    """Sum rows of one sign.

    Precision: stretches are summed in float32 or wider, their sums in float64. The relative error
    is below 2e-6 for float32.
    """
    return _stretch_sums(values).sum(1)


def argmax(values: LongRows) -> Entries:
    """Return the place of the largest entry of each row, the first one of equals."""
    stretch = _by_stretch(values, torch.amax, -math.inf).argmax(1, keepdim=True)
    entries = _entries(values, stretch, -math.inf)
    return (stretch * STRETCH + entries.argmax(1, keepdim=True))[:, 0]


def logsumexp(scores: LongRows) -> Each:
    """Return the normaliser of each row in nats; ``scores`` are the same before and after.

    Precision: exponentials are taken in float32 or wider. The largest entry is left out of their
    sum and added in float64, so that a probability near 1 keeps what it lacks of it.
    """
    best = argmax(scores)[:, None]
    top = scores.gather(1, best)
    scores.scatter_(1, best, -math.inf)
    rest = torch.zeros(len(scores), dtype=torch.float64, device=scores.device)
    for start in range(0, scores.shape[1], PANEL):
        rest += row_sums((scores[:, start : start + PANEL] - top).exp_())
    scores.scatter_(1, best, top)
    return top[:, 0].double() + rest.log1p()


def log_probs_at(scores: LongRows, ids: Entries) -> Each:
    """Return the log-probability of one entry of each row; see ``logsumexp``."""
    return scores.gather(1, ids[:, None])[:, 0].double() - logsumexp(scores)


def weights_(scores: LongRows) -> LongRows:
    """Turn scores into probabilities in place, up to a factor: the likeliest entry gets 1."""
    return scores.sub_(scores.amax(1, keepdim=True)).exp_()


def find_share(weights: LongRows, share: Float[Tensor, " R"]) -> Entries:
    """Find the entry of each row at which the sum from the left exceeds a share of the whole.

    A group of stretches, a stretch and an entry are found one after the other.

    Args:
        weights: Not negative, with finite sums.
        share: In ``[0, 1)``.

    Returns:
        Entries whose weight is not zero.

    Precision: of float32 rows, each stretch has its share of the whole up to a relative error
    of 2e-6, and each entry its share of the stretch up to 1e-15. Otherwise float64.
    """
    sums = _stretch_sums(weights)
    groups = sums.unflatten(1, (-1, STRETCH)).sum(2)
    group, inside = _find(groups, share.double()[:, None])
    stretch, inside = _find_within(sums, group, inside)
    return _find_within(weights, stretch, inside)[0][:, 0]


def in_parts(use: Callable[..., Tensor], long: LongRows, *rows: Tensor) -> Tensor:
    """Concatenate what a function makes of a few rows at a time.

    Args:
        use: Gets some of the long rows and the same ones of ``rows``, and returns as many; called
            once where there are none.
        long: LongRows of which it makes whole copies.
        rows: Further tensors of R rows.
    """
    return torch.cat([use(*part) for part in parts(long, *rows)])


def parts(long: LongRows, *rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors of as many rows into few rows at a time; where there are none, into one part."""
    size = max(1, PART // long.shape[1])
    return zip(*(tensor.split(size) for tensor in (long, *rows)), strict=True)


def _by_stretch(
    values: LongRows, reduce: Callable[[Tensor, int], Tensor], nothing: float
) -> Float64[Tensor, "R S"]:
    """Reduce each stretch, and add empty ones up to a whole number of groups."""
    rows, size = values.shape
    whole, groups = size // STRETCH, -(-size // STRETCH**2)
    columns = values.t()
    if columns.is_contiguous():
        reduced = reduce(columns[: whole * STRETCH].view(whole, STRETCH, rows), 1).t()
    else:
        reduced = reduce(values[:, : whole * STRETCH].unflatten(1, (whole, STRETCH)), 2)
    shape = rows, groups * STRETCH
    padded = torch.full(shape, nothing, dtype=torch.float64, device=values.device)
    padded[:, :whole] = reduced
    if whole * STRETCH < size:
        padded[:, whole] = reduce(values[:, whole * STRETCH :], 1)
    return padded


def _stretch_sums(values: LongRows) -> Float64[Tensor, "R S"]:
    dtype = torch.promote_types(values.dtype, torch.float32)
    return _by_stretch(values, partial(torch.sum, dtype=dtype), 0.0)


def _entries(
    values: Float[Tensor, "R V"], part: Int[Tensor, "R 1"], nothing: float
) -> Float64[Tensor, "R N"]:
    """Return a stretch of each row, filled up where the row has ended."""
    last = values.shape[1] - 1
    index = part * STRETCH + torch.arange(STRETCH, device=values.device)
    entries = values.gather(1, index.clamp(max=last)).double()
    return entries.masked_fill(index > last, nothing)


_Column: TypeAlias = Float64[Tensor, "R 1"]


def _find(weights: Float64[Tensor, "R N"], share: _Column) -> tuple[Int[Tensor, "R 1"], _Column]:
    """Find the entry at a share of each row's sum, and the share of the entry below that point."""
    cumulative = weights.cumsum(1)
    total = cumulative[:, -1:]
    target = torch.minimum(share * total, torch.nextafter(total, torch.zeros_like(total)))
    index = torch.searchsorted(cumulative, target, right=True)
    # Only a row that is no distribution has nothing at that point.
    inside = index.clamp(max=weights.shape[1] - 1)
    weight = weights.gather(1, inside)
    return index, (target - (cumulative.gather(1, inside) - weight)) / weight


def _find_within(
    values: LongRows, part: Int[Tensor, "R 1"], share: _Column
) -> tuple[Int[Tensor, "R 1"], _Column]:
    """Go on inside a stretch of each row."""
    index, inside = _find(_entries(values, part, 0.0), share.clamp(0.0, 1.0))
    return part * STRETCH + index, inside
