"""Accumulators of means and perplexities with standard errors.

Both hold plain sums, so two accumulators are merged by addition, and the vector ``sums`` can be
added over ranks by the owner of the process group.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float64, Int, Shaped
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its standard error."""

    value: float
    se: float
    """Standard error over sequences; NaN for fewer than two."""
    count: int
    """Number of sequences."""


def _require_finite(name: str, values: Shaped[Tensor, " B"]) -> None:
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name}: not finite")


class _Sums:
    """Sums over sequences, from zero or from those of an earlier accumulator."""

    _size: ClassVar[int]

    def __init__(self, sums: Float64[Tensor, " K"] | None = None) -> None:
        if sums is None:
            sums = torch.zeros(self._size, dtype=torch.float64)
        if sums.shape != (self._size,) or sums.dtype != torch.float64:
            allowed = f"float64 ({self._size},)"
            raise ValueError(f"sums: {sums.dtype} {tuple(sums.shape)}; allowed: {allowed}")
        self._sums = sums.detach().cpu().clone()

    @property
    def sums(self) -> Float64[Tensor, " K"]:
        """A copy of the sums, which may be added over ranks."""
        return self._sums.clone()

    def merge(self, other: "_Sums") -> None:
        """Add the sums of another accumulator, which equals one pass over both."""
        self._sums += other._sums


@final
class MeanAccumulator(_Sums):
    """Mean of independent values and its standard error, from count, sum and sum of squares."""

    _size = 3

    def update(self, values: Shaped[Tensor, " B"]) -> None:
        """Add one value per sequence.

        Precision: float64. Sync: waits for the device.
        """
        x = values.detach().to("cpu", torch.float64)
        _require_finite("values", x)
        self._sums += torch.stack([torch.tensor(float(len(x)), dtype=x.dtype), x.sum(), x @ x])

    def compute(self) -> Estimate:
        """Compute the mean and its standard error (sample variance, n - 1).

        Raises:
            ValueError: Nothing was added.
        """
        count, total, squares = self._sums.tolist()
        if count == 0:
            raise ValueError("MeanAccumulator: compute before any update")
        mean = total / count
        if count < 2:
            return Estimate(mean, math.nan, int(count))
        variance = max(squares - total * mean, 0.0) / (count - 1)
        return Estimate(mean, math.sqrt(variance / count), int(count))


@final
class PerplexityAccumulator(_Sums):
    """Token-weighted perplexity and its standard error over sequences.

    The value is exp(sum of nats / sum of tokens): long sequences weigh more, unlike in the mean
    of the sequences' own perplexities. The sums are the count and those of nats, of tokens, of
    nats², nats·tokens and tokens².
    """

    _size = 6

    def update(self, nats: Float64[Tensor, " B"], tokens: Int[Tensor, " B"]) -> None:
        """Add the summed nats and the number of scored tokens of each sequence.

        Units: nats. Precision: float64. Sync: waits for the device.

        Raises:
            ValueError: A value is not finite.
        """
        x = nats.detach().to("cpu", torch.float64)
        n = tokens.detach().to("cpu", torch.float64)
        _require_finite("nats", x)
        count = torch.tensor(float(len(x)), dtype=torch.float64)
        self._sums += torch.stack([count, x.sum(), n.sum(), x @ x, x @ n, n @ n])

    def rate(self) -> Estimate:
        """Compute nats per token and their standard error.

        With r the ratio of sums, the delta method gives
        var(r) = n/(n-1) · Σ(nats_i - r·tokens_i)² / (Σ tokens)².

        Raises:
            ValueError: No token was scored.
        """
        count, nats, tokens, nats_nats, nats_tokens, tokens_tokens = self._sums.tolist()
        if tokens == 0:
            raise ValueError("PerplexityAccumulator: no token was scored")
        rate = nats / tokens
        if count < 2:
            return Estimate(rate, math.nan, int(count))
        residual = max(nats_nats - 2 * rate * nats_tokens + rate**2 * tokens_tokens, 0.0)
        return Estimate(rate, math.sqrt(count / (count - 1) * residual) / tokens, int(count))

    def compute(self) -> Estimate:
        """Compute the perplexity and its standard error, se(exp r) = exp(r)·se(r).

        Raises:
            ValueError: No token was scored.
        """
        rate = self.rate()
        value = math.exp(rate.value)
        return Estimate(value, value * rate.se, rate.count)
