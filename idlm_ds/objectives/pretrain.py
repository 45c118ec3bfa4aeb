"""Losses that make a teacher or a judge."""

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float64
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Denoiser, Process, at
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.tensor_types import PerPosition, Positions, Time, TokenIds


@runtime_checkable
class PretrainObjective(Protocol):
    """A loss of one network on data."""

    def loss(self, model: Denoiser, tokens: TokenIds, t: Time, *, noise: Noise) -> PerPosition:
        """Nats per position, not reduced."""
        ...

    def sequence_nats(
        self, model: Denoiser, tokens: TokenIds, t: Time, *, noise: Noise
    ) -> Float64[Tensor, " B"]:
        """Nats of each sequence."""
        ...

    def num_scored(self, length: int) -> int:
        """Positions of a window the loss is about, the divisor of nats per token."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Nelbo:
    """The negative ELBO of a diffusion family at one time per sequence."""

    process: Process

    def loss(self, model: Denoiser, tokens: TokenIds, t: Time, *, noise: Noise) -> PerPosition:
        """See ``PretrainObjective``."""
        return self._scored(model, tokens, t, noise)[0]

    def sequence_nats(
        self, model: Denoiser, tokens: TokenIds, t: Time, *, noise: Noise
    ) -> Float64[Tensor, " B"]:
        """See ``PretrainObjective``."""
        return _per_sequence(*self._scored(model, tokens, t, noise), tokens)

    def _scored(
        self, model: Denoiser, tokens: TokenIds, t: Time, noise: Noise
    ) -> tuple[PerPosition, Positions]:
        x_0 = SoftTokens.hard(tokens, vocab_size=self.process.vocab_size)
        noisy = self.process.corrupt(x_0, t, noise=noise)
        raw = model(noisy.x_in, noisy.at_t.sigma, at(noisy.positions))
        return self.process.loss(raw, noisy), noisy.positions

    def num_scored(self, length: int) -> int:
        """See ``PretrainObjective``; visible positions count, at a loss of zero."""
        return length


@final
@dataclass(frozen=True, slots=True)
class NextToken:
    """Autoregressive cross-entropy; the first token of a window is not predicted."""

    def loss(self, model: Denoiser, tokens: TokenIds, t: Time, *, noise: Noise) -> PerPosition:
        """See ``PretrainObjective``; ``t`` and ``noise`` are not used."""
        del noise
        return self._scored(model, tokens, t)[0]

    def sequence_nats(
        self, model: Denoiser, tokens: TokenIds, t: Time, *, noise: Noise
    ) -> Float64[Tensor, " B"]:
        """See ``PretrainObjective``; ``t`` and ``noise`` are not used."""
        del noise
        return _per_sequence(*self._scored(model, tokens, t), tokens)

    def _scored(self, model: Denoiser, tokens: TokenIds, t: Time) -> tuple[PerPosition, Positions]:
        batch, length = tokens.shape
        every = torch.arange(batch * length, device=tokens.device)
        givers = every[every % length != length - 1]
        raw = model(tokens, torch.zeros_like(t), at(givers))
        nats = F.cross_entropy(raw.float(), tokens.flatten()[givers + 1], reduction="none")
        return nats, givers

    def num_scored(self, length: int) -> int:
        """See ``PretrainObjective``."""
        return length - 1


def _per_sequence(
    nats: PerPosition, positions: Positions, tokens: TokenIds
) -> Float64[Tensor, " B"]:
    batch, length = tokens.shape
    sums = torch.zeros(batch, dtype=torch.float64, device=nats.device)
    return sums.index_add(0, positions // length, nats.double())
