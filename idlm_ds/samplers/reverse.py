"""Walking a sequence down a time grid: what all reverse chains have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Denoiser, Process, at
from idlm_ds.tensor_types import Logits, Positions, Time, TokenIds

Tail: TypeAlias = Literal["ancestral", "greedy", "none"]
"""How the last noise is removed: drawn like every other step, by the likeliest token, or not."""


@runtime_checkable
class ReverseStep(Protocol):
    """One reverse step; ``Process.step`` is one."""

    def __call__(
        self, x_t: TokenIds, t: Time, s: Time, ask: Callable[[Positions], Logits], *, noise: Noise
    ) -> TokenIds:
        """Draw the state at ``s``; ``ask`` must be called exactly once."""
        ...


@dataclass(frozen=True, slots=True)
class Sampled:
    """Sequences and what they cost."""

    tokens: TokenIds

    evaluations: Int[Tensor, " B"]
    """How often the network was run on each sequence."""

    dtypes: frozenset[torch.dtype]
    """In what precision its tokens were drawn, as seen on the random numbers themselves."""


@torch.no_grad()
def sample_reverse(
    process: Process,
    move: ReverseStep,
    denoiser: Denoiser,
    x: TokenIds,
    times: Float[Tensor, " N"],
    *,
    noise: Noise,
    tail: Tail = "ancestral",
    sharpen: Callable[[Logits], Logits] = lambda raw: raw,
) -> Sampled:
    """Walk ``x`` down the time grid.

    The network is run only on sequences in which a token is about to be drawn, and projected
    only at those tokens. That is exact for a network that does not see the time, and for one
    that does, since an answer nobody uses has no effect.

    Args:
        process: The family ``x`` belongs to.
        move: Its reverse step.
        denoiser: The network.
        x: The start, usually ``process.prior(...)``.
        times: Strictly decreasing; the first entry is the time of ``x``.
        noise: One stream per sequence; the result for a sequence does not depend on the others.
        tail: What to do in the step that ends at time 0.
        sharpen: Applied to the scores in float64 before the step sees them.

    Collective: calls the network once a step, also when no token is drawn, so that ranks which
    share ZeRO-3 weights stay together.

    Raises:
        ValueError: The grid does not decrease.
    """
    if not bool((times.diff() < 0).all()):
        raise ValueError("times must be strictly decreasing")
    evaluations = torch.zeros(len(x), dtype=torch.long)
    noise.dtypes.clear()
    for t, s in zip(times[:-1], times[1:], strict=True):
        is_last = bool(s == 0)
        if is_last and tail == "none":
            break
        t_b, s_b = (u.to(x.device).expand(len(x)) for u in (t, s))
        ask = _Ask(denoiser, x, process.schedule.at(t_b).sigma, sharpen, evaluations)
        if is_last and tail == "greedy":
            x = _likeliest(process, x, ask)
        else:
            x = move(x, t_b, s_b, ask, noise=noise)
    return Sampled(x, evaluations, frozenset(noise.dtypes))


def _likeliest(process: Process, x: TokenIds, ask: Callable[[Positions], Logits]) -> TokenIds:
    positions = process.undecided(x)
    x_0 = x.clone(memory_format=torch.contiguous_format)
    x_0.view(-1)[positions] = process.predict(ask(positions)).argmax(-1)
    return x_0


@dataclass(frozen=True, slots=True)
class _Ask:
    """Runs the network on the sequences that need it and counts how often."""

    denoiser: Denoiser
    x: TokenIds
    sigma: Time
    sharpen: Callable[[Logits], Logits]
    evaluations: Tensor

    def __call__(self, positions: Positions) -> Logits:
        length = self.x.shape[1]
        rows, row_of = (positions // length).unique(return_inverse=True)
        self.evaluations[rows.cpu()] += 1
        if len(rows) == 0:
            rows = torch.zeros(1, dtype=torch.long, device=self.x.device)
        local = row_of * length + positions % length
        return self.sharpen(self.denoiser(self.x[rows], self.sigma[rows], at(local)).double())
