"""Likelihood of held-out text under a network, with its standard error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float64
from torch import Tensor

from idlm_ds.metrics.accumulate import Estimate, PerplexityAccumulator
from idlm_ds.noise import Noise, stratified_times
from idlm_ds.processes.base import Denoiser
from idlm_ds.tensor_types import Time, TokenIds

PUBLISHED_T_MIN = 1e-3
"""Smallest time of published figures; the variance of masked losses is infinite from time 0."""


@runtime_checkable
class SequenceObjective(Protocol):
    """A loss that is known per sequence; ``PretrainMethod`` is one."""

    def sequence_nats(
        self, model: Denoiser, tokens: TokenIds, t: Time, *, noise: Noise
    ) -> Float64[Tensor, " B"]:
        """Nats of each sequence."""

    def num_scored(self, length: int) -> int:
        """Positions of a window the loss is about, the divisor of nats per token."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """A likelihood in three units.

    Of a NELBO it is a Monte Carlo estimate of the integral over time alone. The terms of prior and
    reconstruction, without which it is no upper bound where noise at t=1 is not complete or at t=0
    not zero, are left out as in publications; see the README of this folder for their size.
    """

    nats: Estimate
    """Per token."""
    bits: Estimate
    """Per token."""
    ppl: Estimate

    @classmethod
    def of(cls, accumulator: PerplexityAccumulator) -> "Likelihood":
        """Convert an accumulator, for instance the sum of those of all ranks."""
        nats = accumulator.rate()
        bits = Estimate(nats.value / math.log(2), nats.se / math.log(2), nats.count)
        return cls(nats, bits, accumulator.compute())


@torch.no_grad()
def measure_likelihood(
    objective: SequenceObjective,
    denoiser: Denoiser,
    windows: TokenIds,
    *,
    batch: int,
    draws: int = 1,
    seed: int = 0,
    t_min: float = PUBLISHED_T_MIN,
    rows: Sequence[int] | None = None,
    num_batches: int = 0,
    device: torch.device | str = "cpu",
) -> PerplexityAccumulator:
    """Average the objective over times and noise, window by window.

    Times are stratified: each of the ``draws * len(windows)`` strata of ``[t_min, 1]`` has one, and
    the draws of one window are a constant step apart. Times and noise belong to the index of a
    window, so neither ``batch`` nor the split over ranks changes them. The standard error treats
    windows as independent; it ignores that strata balance each other, and is too large at one draw.

    Args:
        objective: Loss that is averaged, in nats per sequence.
        denoiser: The network.
        windows: All windows, shape (N, L), on every rank.
        batch: Windows per call of the network.
        draws: Number of times per window.
        seed: Seed of times and noise.
        t_min: Smallest time.
        rows: Indices of the windows to measure on this rank; all by default.
        num_batches: Minimum number of network calls per draw; ranks that share ZeRO-3 weights
            must make equally many.
        device: Device of the computation.

    Units: nats. Precision: sums in float64.
    """
    strata = stratified_times(seed, "validation", count=len(windows), t_min=0.0)
    chosen = range(len(windows)) if rows is None else rows
    parts = [chosen[i : i + batch] for i in range(0, len(chosen), batch)]
    # Ranks that run out of windows repeat window 0 and discard the result.
    num_idle = max(0, num_batches - len(parts))
    accumulator = PerplexityAccumulator()
    for i, part in enumerate([*parts, *([[0]] * num_idle)]):
        indices = list(part)
        tokens = windows[indices].to(device)
        noise = Noise.of_samples(seed, "validation", samples=indices, device=device)
        total = torch.zeros(len(indices), dtype=torch.float64)
        for draw in range(draws):
            t = t_min + (1.0 - t_min) * (draw + strata[indices]) / draws
            total += objective.sequence_nats(denoiser, tokens, t.to(device), noise=noise).cpu()
        if i < len(parts):
            num_scored = objective.num_scored(windows.shape[1])
            accumulator.update(total / draws, torch.full((len(indices),), num_scored))
    return accumulator
