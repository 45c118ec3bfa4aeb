"""Sampling with some tokens known beforehand: completion and infilling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Denoiser, Process
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.samplers.reverse import ReverseStep, Sampled
from idlm_ds.tensor_types import Logits, Positions, Time, TokenIds


@final
@dataclass(frozen=True, slots=True)
class Given:
    """What is known of each sequence."""

    tokens: TokenIds
    """Any id where nothing is known."""

    known: Bool[Tensor, "B L"]

    @classmethod
    def of(
        cls, rows: Sequence[Sequence[int | None]], *, device: torch.device | str = "cpu"
    ) -> "Given":
        """Take rows of one length; None stands where a token is to be drawn."""
        tokens = torch.tensor([[token or 0 for token in row] for row in rows], device=device)
        known = [[token is not None for token in row] for row in rows]
        return cls(tokens, torch.tensor(known, device=device))

    def put(self, x: TokenIds) -> TokenIds:
        """Write what is known over ``x``."""
        return torch.where(self.known, self.tokens, x)


def sample_clamped(
    process: Process, denoiser: Denoiser, given: Given, chain: SamplerConfig, *, noise: Noise
) -> Sampled:
    """Draw sequences in which known tokens stand from the first step to the last.

    In masked families these tokens are revealed before the chain begins, which is a state like any
    other: the samples are exactly those of the chain that starts there. In uniform ones no state
    says that a token is certain, so known tokens are put back after each step. That is an
    approximation: the network takes them for as noisy as the rest, and heeds them less the
    noisier a step is.

    Args:
        process: Any family.
        denoiser: The network.
        given: What is known; sequences may differ in where.
        chain: How the rest is drawn.
        noise: One stream per sequence; the result for a sequence does not depend on the others.

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
    move = _Held(chain.reverse_step(process), given)
    sampled = chain.draw(process, denoiser, start, noise=noise, move=move)
    return replace(sampled, tokens=given.put(sampled.tokens))


@final
@dataclass(frozen=True, slots=True)
class _Held:
    """Another step, which neither changes what is known nor asks for scores there."""

    move: ReverseStep
    given: Given

    def __call__(
        self, x_t: TokenIds, t: Time, s: Time, ask: Callable[[Positions], Logits], *, noise: Noise
    ) -> TokenIds:
        """See ``ReverseStep``."""

        def ask_elsewhere(positions: Positions) -> Logits:
            is_open = ~self.given.known.flatten()[positions]
            raw = ask(positions[is_open])
            rows = raw.new_zeros(len(positions), raw.shape[1])
            rows[is_open] = raw
            return rows

        return self.given.put(self.move(x_t, t, s, ask_elsewhere, noise=noise))
