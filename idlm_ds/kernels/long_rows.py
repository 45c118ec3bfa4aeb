"""Sums, maxima and searches in rows as long as a vocabulary, wherever they lie in memory.

Rows are cut into stretches, so that each row is read once and none is copied. A block of scores
on a CPU has its rows as columns in memory; reducing over neighbours in a column would be ten times
slower than reducing it as it lies.

Shapes: R rows, V entries, S stretches.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, final

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

STRETCH = 32
"""Entries that are reduced in the precision of a row before anything is widened to float64."""

GROUP = STRETCH**2
"""Entries of as many stretches as a stretch has entries."""

PANEL = 2**18
"""Entries of all rows that exponentials are taken of at a time; they should stay in a cache."""

PART = 2**20
"""Entries of rows that are worked on at a time where whole copies are made of them."""

LongRows: TypeAlias = Float[Tensor, "R V"]
PerRow: TypeAlias = Float64[Tensor, " R"]
_Column: TypeAlias = Float64[Tensor, "R 1"]


def row_sums(values: LongRows) -> PerRow:
    """Sum rows of one sign.

    Precision: stretches are summed in float32 or wider, their sums in float64. The relative error
    is below 2e-6 for float32.
    """
    return _stretch_sums(values).sum(1)


def argmax(values: LongRows) -> Int[Tensor, " R"]:
    """Return the place of the largest entry of each row, the first one of equals."""
    return _best(values, _by_stretch(values, torch.amax, -math.inf))


def find_share(weights: LongRows, share: Float[Tensor, " R"]) -> Int[Tensor, " R"]:
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
    stretch, inside = _find_stretch(_stretch_sums(weights), share)
    return _find_within(_entries(weights, stretch, 0.0), stretch, inside)[0][:, 0]


def logsumexp(scores: LongRows) -> PerRow:
    """Return the normaliser of each row in nats; see ``Softmax``."""
    return Softmax.of(scores).logsumexp()


@final
@dataclass(frozen=True, slots=True)
class Softmax:
    """Distributions with logarithms ``scores / temperature``, up to a constant of each row.

    Precision: exponentials in float32 or wider. Stretches of 32 are summed in that precision and
    everything else in float64, so sums of float32 rows have a relative error below 2e-6, and draws
    differ from the distribution by less than 1e-6 in total variation.
    """

    scores: LongRows
    """Minus infinity where nothing is drawn."""

    temperature: float
    top: _Column
    """The largest score."""

    maxima: Float64[Tensor, "R S"]
    """The largest score of each stretch."""

    sums: Float64[Tensor, "R S"]
    """The sum of each stretch, where the likeliest entry of the row has 1."""

    @classmethod
    def of(cls, scores: LongRows, temperature: float = 1.0) -> "Softmax":
        """Read rows once; they are not changed, and must stay as they are."""
        step = GROUP * max(1, PANEL // GROUP // max(1, len(scores)))
        in_bits = 1.0 / (math.log(2.0) * temperature)
        maxima, sums, tops = [], [], []
        for start in range(0, scores.shape[1], step):
            panel = scores[:, start : start + step]
            maxima.append(_by_stretch(panel, torch.amax, -math.inf))
            # Finite, also where a panel has nothing to draw.
            tops.append(maxima[-1].amax(1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min))
            shifted = (panel - tops[-1].to(scores.dtype)).mul_(in_bits)
            # Three times as fast as ``exp`` on a CPU.
            sums.append(_stretch_sums(shifted.exp2_()))
        # Every panel has been summed relative to its own largest entry.
        panel_top = torch.cat(tops, 1)
        top = panel_top.amax(1, keepdim=True)
        for part, scale in zip(
            sums, ((panel_top - top) / temperature).exp().split(1, 1), strict=True
        ):
            part.mul_(scale)
        return cls(scores, temperature, top, torch.cat(maxima, 1), torch.cat(sums, 1))

    def best(self) -> Int[Tensor, " R"]:
        """Return the likeliest entries, the first one of equals."""
        return _best(self.scores, self.maxima)

    def draw(self, uniform: Float[Tensor, " R"]) -> Int[Tensor, " R"]:
        """Draw one entry a row; see ``noise.draw_categorical``."""
        stretch, inside = _find_stretch(self.sums, uniform)
        weights = self._weights(_entries(self.scores, stretch, -math.inf))
        return _find_within(weights, stretch, inside)[0][:, 0]

    def probs_at(self, ids: Int[Tensor, " R"]) -> PerRow:
        """Return the probability of one entry of each row."""
        return self._weights(self._scores_at(ids))[:, 0] / self.sums.sum(1)

    def log_probs_at(self, ids: Int[Tensor, " R"]) -> PerRow:
        """Return the logarithm of the probability of one entry of each row; see ``logsumexp``."""
        return (self._scores_at(ids) - self.top)[:, 0] / self.temperature - self._log_excess()

    def logsumexp(self) -> PerRow:
        """Return the normalisers in nats.

        Precision: the likeliest entry is added to the others in float64, so that a probability
        near 1 keeps what it lacks of it.
        """
        return self.top[:, 0] / self.temperature + self._log_excess()

    def _log_excess(self) -> PerRow:
        """Return how far the normaliser exceeds the largest entry."""
        best = self.best()[:, None]
        stretch = best // STRETCH
        weights = self._weights(_entries(self.scores, stretch, -math.inf))
        weights = weights.scatter(1, best % STRETCH, 0.0)
        return self.sums.scatter(1, stretch, weights.sum(1, keepdim=True)).sum(1).log1p()

    def _scores_at(self, ids: Int[Tensor, " R"]) -> _Column:
        return self.scores.gather(1, ids[:, None]).double()

    def _weights(self, scores: Float64[Tensor, "R N"]) -> Float64[Tensor, "R N"]:
        return ((scores - self.top) / self.temperature).exp()


def in_parts(use: Callable[..., Tensor], long: LongRows, *rows: Tensor) -> Tensor:
    """Concatenate what a function makes of a few rows at a time.

    Args:
        use: Gets some of the long rows and the same ones of ``rows``, and returns as many; called
            once where there are none.
        long: Rows of which it makes whole copies.
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
    whole, groups = size // STRETCH, -(-size // GROUP)
    stretches = values[:, : whole * STRETCH].unflatten(1, (whole, STRETCH))
    if values.stride(0) == 1:
        # A row is a column in memory.
        reduced = reduce(stretches.permute(1, 2, 0), 1).t()
    else:
        reduced = reduce(stretches, 2)
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
    values: LongRows, stretch: Int[Tensor, "R 1"], nothing: float
) -> Float64[Tensor, "R N"]:
    """Return a stretch of each row, filled up where the row has ended."""
    last = values.shape[1] - 1
    index = stretch * STRETCH + torch.arange(STRETCH, device=values.device)
    entries = values.gather(1, index.clamp(max=last)).double()
    return entries.masked_fill(index > last, nothing)


def _best(values: LongRows, maxima: Float64[Tensor, "R S"]) -> Int[Tensor, " R"]:
    stretch = maxima.argmax(1, keepdim=True)
    entries = _entries(values, stretch, -math.inf)
    return (stretch * STRETCH + entries.argmax(1, keepdim=True))[:, 0]


def _find_stretch(
    sums: Float64[Tensor, "R S"], share: Float[Tensor, " R"]
) -> tuple[Int[Tensor, "R 1"], _Column]:
    """Find the stretch at a share of the whole, and the share of it that lies below."""
    groups = sums.unflatten(1, (-1, STRETCH)).sum(2)
    group, inside = _find(groups, share.double()[:, None])
    return _find_within(_entries(sums, group, 0.0), group, inside)


def _find_within(
    weights: Float64[Tensor, "R N"], part: Int[Tensor, "R 1"], share: _Column
) -> tuple[Int[Tensor, "R 1"], _Column]:
    index, inside = _find(weights, share.clamp(0.0, 1.0))
    return part * STRETCH + index, inside


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
