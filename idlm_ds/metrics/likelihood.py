"""How well a network predicts text it has not seen, and how well that is known."""

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
"""Below it the few masked positions weigh so much that the variance has no bound."""


@runtime_checkable
class SequenceObjective(Protocol):
    """A loss that is known per sequence; ``PretrainMethod`` is one."""

    def sequence_nats(
        self, model: Denoiser, tokens: TokenIds, t: Time, *, noise: Noise
    ) -> Float64[Tensor, " B"]:
        """Nats of each sequence."""
        ...

    def num_scored(self, length: int) -> int:
        """Positions of a window the loss is about, the divisor of nats per token."""
        ...


@dataclass(frozen=True, slots=True)
class Likelihood:
    """One figure in its three units; an upper bound where the objective is a NELBO."""

    nats: Estimate
    """Per token."""
    bits: Estimate
    """Per token."""
    ppl: Estimate

    @classmethod
    def of(cls, seen: PerplexityAccumulator) -> "Likelihood":
        """Read an accumulator, such as the sum of those of all ranks."""
        nats = seen.rate()
        bits = Estimate(nats.value / math.log(2), nats.se / math.log(2), nats.count)
        return cls(nats, bits, seen.compute())


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

    Over all windows and draws together there is one time in each of ``draws * len(windows)``
    strata of ``[t_min, 1]``, and the draws of one window lie a constant step apart, so the more
    draws, the less a window's own figure depends on chance. Times and noise belong to a window's
    index: neither ``batch`` nor the split over ranks moves them. The standard error is that
    of independent windows; it does not know that strata balance each other, and so is rather
    too large at one draw.

    Args:
        objective: What is averaged, in nats of a sequence.
        denoiser: The network.
        windows: (N, L), all of them, on every rank.
        batch: Windows at a time.
        draws: Times a window.
        seed: Names times and noise.
        t_min: Smallest time.
        rows: The windows to measure here; all by default.
        num_batches: How often to call the network a draw, at least; ranks that share ZeRO-3
            weights must call it equally often.
        device: Where to compute.

    Units: nats. Precision: sums in float64.
    """
    strata = stratified_times(seed, "validation", count=len(windows), t_min=0.0)
    chosen = range(len(windows)) if rows is None else rows
    parts = [chosen[i : i + batch] for i in range(0, len(chosen), batch)]
    idle = max(0, num_batches - len(parts))
    seen = PerplexityAccumulator()
    for i, part in enumerate([*parts, *([[0]] * idle)]):
        mine = list(part)
        tokens = windows[mine].to(device)
        noise = Noise.of_samples(seed, "validation", samples=mine, device=device)
        total = torch.zeros(len(mine), dtype=torch.float64)
        for draw in range(draws):
            t = t_min + (1.0 - t_min) * (draw + strata[mine]) / draws
            total += objective.sequence_nats(denoiser, tokens, t.to(device), noise=noise).cpu()
        if i < len(parts):
            scored = objective.num_scored(windows.shape[1])
            seen.update(total / draws, torch.full((len(mine),), scored))
    return seen
