"""Sampling with some tokens known beforehand: completion and infilling."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Ask, Denoiser, Process, Use
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.samplers.reverse import OnStep, ReverseStep, Sampled
from idlm_ds.tensor_types import Positions, Time, TokenIds


@final
@dataclass(frozen=True, slots=True)
class Given:
    """Known tokens of each sequence."""

    tokens: TokenIds
    """Any id where nothing is known."""

    known: Bool[Tensor, "B L"]

    @classmethod
    def of(
        cls, rows: Sequence[Sequence[int | None]], *, device: torch.device | str = "cpu"
    ) -> "Given":
        """Build from rows of one length; None marks a token to be drawn."""
        tokens = torch.tensor([[token or 0 for token in row] for row in rows], device=device)
        known = [[token is not None for token in row] for row in rows]
        return cls(tokens, torch.tensor(known, device=device))

    def put(self, x: TokenIds) -> TokenIds:
        """Write the known tokens over ``x``."""
        return torch.where(self.known, self.tokens, x)


def sample_clamped(
    process: Process,
    denoiser: Denoiser,
    given: Given,
    config: SamplerConfig,
    *,
    noise: Noise,
    on_step: OnStep | None = None,
) -> Sampled:
    """Draw sequences in which known tokens are fixed from the first step to the last.

    In masked families these tokens are revealed before the chain begins, which is a state like any
    other: the samples are exactly those of the chain that starts there. In uniform ones no state
    says that a token is certain, so known tokens are put back after each step. That is an
    approximation: the network takes them for as noisy as the rest, and relies on them less the
    noisier a step is.

    Args:
        process: Any family.
        denoiser: The network.
        given: Known tokens; their positions may differ between sequences.
        config: Settings of the chain that draws the rest.
        noise: One stream per sequence; the result for a sequence does not depend on the others.
        on_step: Watches the chain; known positions are never ``revealed``.

    Collective: see ``sample_reverse``.

    Raises:
        ValueError: A known token is no id of the vocabulary, or is the mask.
    """
    known = given.tokens[given.known]
    is_wrong = (known < 0) | (known >= process.vocab_size)
    if isinstance(process, Absorbing):
        is_wrong |= known == process.mask_id
    if is_wrong.any():
        raise ValueError(f"given: {known[is_wrong][0].item()} is no token that can be known")
    start = given.put(process.prior(*given.tokens.shape, noise=noise))
    sampled = config.draw(
        process,
        denoiser,
        start,
        noise=noise,
        reverse_step=_ClampedStep(config.reverse_step(process), given),
        on_step=None if on_step is None else partial(_watch_clamped, on_step, given),
    )
    # A greedy tail takes no reverse step, and in uniform families it rewrites known tokens too.
    return replace(sampled, tokens=given.put(sampled.tokens))


@final
@dataclass(frozen=True, slots=True)
class _ClampedStep:
    """A reverse step that neither changes known tokens nor asks for scores there."""

    reverse_step: ReverseStep
    given: Given

    def __call__(self, x_t: TokenIds, t: Time, s: Time, ask: Ask, *, noise: Noise) -> TokenIds:
        """See ``ReverseStep``."""

        def ask_elsewhere(use: Use, positions: Positions, *rows: Tensor) -> Tensor:
            is_open = ~self.given.known.flatten()[positions]
            results = ask(use, positions[is_open], *(row[is_open] for row in rows))
            # What a step makes of a zero at a known position is overwritten.
            every = results.new_zeros(len(positions), *results.shape[1:])
            every[is_open] = results
            return every

        return self.given.put(self.reverse_step(x_t, t, s, ask_elsewhere, noise=noise))


def _watch_clamped(
    on_step: OnStep, given: Given, k: int, t: float, x_t: TokenIds, revealed: Bool[Tensor, "B L"]
) -> None:
    on_step(k, t, given.put(x_t), revealed & ~given.known)
