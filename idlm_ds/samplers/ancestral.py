"""Ancestral sampling of the reverse chain."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Denoiser, Process, at
from idlm_ds.tensor_types import Logits, Positions, TokenIds


@dataclass(frozen=True, slots=True)
class Sampled:
    """Sequences and what they cost."""

    tokens: TokenIds

    evaluations: Int[Tensor, " B"]
    """How often the network was run on each sequence."""


@torch.no_grad()
def sample_ancestral(
    process: Process,
    denoiser: Denoiser,
    x: TokenIds,
    times: Float[Tensor, " N"],
    *,
    noise: Noise,
    temperature: float = 1.0,
) -> Sampled:
    """Walk ``x`` down the time grid.

    The network is run only on sequences in which a token is about to be drawn, and projected
    only at those tokens. That is exact for a network that does not see the time, and for one
    that does, since an answer nobody uses has no effect.

    Args:
        process: The family whose reverse step is used.
        denoiser: The network.
        x: The start, usually ``process.prior(...)``.
        times: Strictly decreasing; the first entry is the time of ``x``.
        noise: One stream per sequence; the result for a sequence does not depend on the others.
        temperature: Scores are divided by it; 1 is the model itself.

    Collective: calls the network once a step, also when no token is drawn, so that ranks which
    share ZeRO-3 weights stay together.

    Raises:
        ValueError: The grid does not decrease, or the temperature is not positive.
    """
    if not bool((times.diff() < 0).all()):
        raise ValueError("times must be strictly decreasing")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    evaluations = torch.zeros(len(x), dtype=torch.long)
    for t, s in zip(times[:-1], times[1:], strict=True):
        t_b, s_b = (u.to(x.device).expand(len(x)) for u in (t, s))
        sigma = process.schedule.at(t_b).sigma
        ask = _Ask(denoiser, x, sigma, temperature, evaluations)
        x = process.step(x, t_b, s_b, ask, noise=noise)
    return Sampled(x, evaluations)


@dataclass(frozen=True, slots=True)
class _Ask:
    """Runs the network on the sequences that need it and counts how often."""

    denoiser: Denoiser
    x: TokenIds
    sigma: Tensor
    temperature: float
    evaluations: Tensor

    def __call__(self, positions: Positions) -> Logits:
        length = self.x.shape[1]
        rows, row_of = (positions // length).unique(return_inverse=True)
        self.evaluations[rows.cpu()] += 1
        if len(rows) == 0:
            rows = torch.zeros(1, dtype=torch.long, device=self.x.device)
        local = row_of * length + positions % length
        raw = self.denoiser(self.x[rows], self.sigma[rows], at(local))
        return raw.double() / self.temperature
