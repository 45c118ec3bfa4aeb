"""The loop over a time grid that all reverse chains share."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from idlm_ds.kernels.long_rows import argmax
from idlm_ds.noise import Noise
from idlm_ds.processes.base import Ask, Denoiser, Process, Use, each
from idlm_ds.processes.latent import draw_latent, show_latent
from idlm_ds.registry.samplers import DRAWN, GREEDY, NO_TAIL
from idlm_ds.tensor_types import Logits, NetworkInput, Positions, SoftInput, Time, TokenIds

OnStep: TypeAlias = Callable[[int, float, TokenIds, Bool[Tensor, "B L"]], None]
"""Watches a sampler: ``on_step(k, t, x_t, revealed)`` is called after step k = 0, 1, ...

``t`` is the diffusion time reached, in [0, 1]. ``x_t`` (B, L) is the state there; no later step
writes to it, so it may be kept. ``revealed`` (B, L) marks the positions whose token this step
changed; in masked families, the ones that went from the mask to a token.
"""


@runtime_checkable
class ReverseStep(Protocol):
    """One reverse step; ``Process.step`` is one."""

    def __call__(self, x_t: TokenIds, t: Time, s: Time, ask: Ask, *, noise: Noise) -> TokenIds:
        """Draw the state at ``s`` without writing to ``x_t``; ``ask`` is called exactly once."""


def ancestral_step(process: Process) -> ReverseStep:
    """Return the factorised step of the family itself."""
    return process.step


@dataclass(frozen=True, slots=True)
class Sampled:
    """Sequences and what they cost."""

    tokens: TokenIds

    evaluations: Int[Tensor, " B"]
    """How often the network was run on each sequence."""


@torch.no_grad()
def sample_reverse(
    process: Process,
    reverse_step: ReverseStep,
    denoiser: Denoiser,
    x: TokenIds,
    times: Float[Tensor, " N"],
    *,
    noise: Noise,
    tail: str = DRAWN,
    latent: int = 0,
    truncation: Callable[[Logits], Logits] = lambda raw: raw,
    on_step: OnStep | None = None,
) -> Sampled:
    """Run the reverse chain from ``x`` down the time grid.

    The network is run only on sequences in which a token is about to be drawn, and projected
    only at those tokens. That is exact for a network that does not see the time, and for one
    that does, since an answer nobody uses has no effect.

    Args:
        process: The family ``x`` belongs to.
        reverse_step: Its reverse step.
        denoiser: The network.
        x: The start, usually ``process.prior(...)``.
        times: Strictly decreasing; the first entry is the time of ``x``.
        noise: One stream per sequence; the result for a sequence does not depend on the others.
        tail: How the step that ends at time 0 is made; a name of ``TAILS``.
        latent: Entries of the network's latent, drawn afresh in every step, from the streams of
            all sequences alike; 0 for a network without one.
        truncation: Applied to a block of scores, which it may overwrite, before the step sees it.
        on_step: Watches the chain; changes no draw.

    Collective: calls the network once a step, also when no token is drawn, so that ranks which
    share ZeRO-3 weights stay together.

    Raises:
        ValueError: The grid does not decrease.
    """
    if not bool((times.diff() < 0).all()):
        raise ValueError("times must be strictly decreasing")
    evaluations = torch.zeros(len(x), dtype=torch.long)
    for k, (t, s) in enumerate(pairwise(times)):
        is_last = bool(s == 0)
        if is_last and tail == NO_TAIL:
            break
        t_b, s_b = (u.to(x.device).expand(len(x)) for u in (t, s))
        sigma = process.schedule.at(t_b).sigma
        z = draw_latent(latent, x.shape[1], noise=noise)
        shown = show_latent(process, x, z, x_t=x, sigma=sigma)
        ask = _Ask(denoiser, shown, sigma, truncation, evaluations)
        if is_last and tail == GREEDY:
            x_s = _likeliest(process, x, ask)
        else:
            x_s = reverse_step(x, t_b, s_b, ask, noise=noise)
        # A step returns a new tensor and never writes to the old one: states need no copy here,
        # and comparing them tells what was drawn without asking the step.
        if on_step is not None:
            on_step(k, s.item(), x_s, x_s != x)
        x = x_s
    return Sampled(x, evaluations)


def _likeliest(process: Process, x: TokenIds, ask: Ask) -> TokenIds:
    positions = process.undecided(x)
    x_0 = x.clone(memory_format=torch.contiguous_format)
    x_0.view(-1)[positions] = ask(lambda raw: argmax(process.clean_scores_(raw)), positions)
    return x_0


@dataclass(frozen=True, slots=True)
class _Ask:
    """Runs the network on the sequences that need it and counts how often."""

    denoiser: Denoiser
    x: NetworkInput
    sigma: Time
    truncation: Callable[[Logits], Logits]
    evaluations: Tensor

    def __call__(self, use: Use, positions: Positions, *rows: Tensor) -> Tensor:
        assert not isinstance(self.x, SoftInput)
        length = self.x.shape[1]
        # Positions increase, so those of a sequence are neighbours.
        asked, asked_of = (positions // length).unique_consecutive(return_inverse=True)
        self.evaluations[asked.cpu()] += 1
        # Under ZeRO-3 every rank must take part in every call, so a step that draws nothing
        # still shows the network one sequence.
        if len(asked) == 0:
            asked = torch.zeros(1, dtype=torch.long, device=positions.device)
        local = asked_of * length + positions % length

        def use_truncated(raw: Logits, *rows: Tensor) -> Tensor:
            return use(self.truncation(raw), *rows)

        return self.denoiser(self.x[asked], self.sigma[asked], each(use_truncated, local, *rows))
