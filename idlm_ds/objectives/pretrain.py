"""Pretraining losses of teachers and judges."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float64
from torch import Tensor

from idlm_ds.kernels.learn import learn_rows
from idlm_ds.kernels.long_rows import Softmax
from idlm_ds.noise import Noise
from idlm_ds.objectives.alternation import Phase, Single
from idlm_ds.objectives.base import Method, StepInput, StepLoss
from idlm_ds.objectives.scored import Scored
from idlm_ds.processes.base import Denoiser, Head, Noisy, Process, at, each
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.tensor_types import Logits, PerPosition, Positions, Time, TokenIds


class PretrainMethod(Method):
    """A loss of a single network on data."""

    plan: Single
    t_min: float
    loss_names: ClassVar[Mapping[Phase, str]] = {Phase.PRETRAIN: "loss"}

    @property
    def smallest_times(self) -> Mapping[str, float]:
        """See base class."""
        return {"t": self.t_min}

    def loss(self, phase: Phase, networks: Mapping[str, Denoiser], batch: StepInput) -> StepLoss:
        """See base class."""
        model, t = networks[phase.learner], batch.times["t"]
        return StepLoss(self.nats(model, batch.tokens, t, noise=batch.noise)[0])

    @abstractmethod
    def nats(
        self, model: Denoiser, tokens: TokenIds, t: Time, *, noise: Noise
    ) -> tuple[PerPosition, Positions]:
        """Return the nats of all scored positions, and those positions.

        Gradient: none, but for ``NextToken`` where gradients are enabled.
        """

    @abstractmethod
    def num_scored(self, length: int) -> int:
        """Count the scored positions of a window: the divisor of nats per token."""

    def sequence_nats(
        self, model: Denoiser, tokens: TokenIds, t: Time, *, noise: Noise
    ) -> Float64[Tensor, " B"]:
        """Sum the nats of each sequence."""
        nats, positions = self.nats(model, tokens, t, noise=noise)
        batch, length = tokens.shape
        sums = torch.zeros(batch, dtype=torch.float64, device=nats.device)
        return sums.index_add(0, positions // length, nats.double())


@final
@dataclass(frozen=True, slots=True)
class Nelbo(PretrainMethod):
    """The negative ELBO of a diffusion family at one time per sequence."""

    process: Process
    t_min: float = 0.0
    plan: Single = Single()

    def loss(self, phase: Phase, networks: Mapping[str, Denoiser], batch: StepInput) -> StepLoss:
        """See base class; loss and gradient are computed in blocks of score rows."""
        noisy = self._noised(batch.tokens, batch.times["t"], batch.noise)
        scored = Scored.of(noisy, with_hard=True)

        def loss(raw: Logits, piece: slice) -> tuple[PerPosition, Logits]:
            return self.process.loss_slope(raw, scored.block(piece))

        def read(head: Head) -> Tensor:
            return head.fused(learn_rows, scored.positions, scored.pieces, loss)

        return StepLoss(networks[phase.learner](noisy.x_in, noisy.at_t.sigma, read))

    def nats(
        self, model: Denoiser, tokens: TokenIds, t: Time, *, noise: Noise
    ) -> tuple[PerPosition, Positions]:
        """See base class."""
        noisy = self._noised(tokens, t, noise)

        def loss(raw: Logits, positions: Positions) -> PerPosition:
            return self.process.loss(raw, noisy.at(positions))

        read = each(loss, noisy.positions, noisy.positions)
        return model(noisy.x_in, noisy.at_t.sigma, read), noisy.positions

    def _noised(self, tokens: TokenIds, t: Time, noise: Noise) -> Noisy:
        x_0 = SoftTokens.hard(tokens, vocab_size=self.process.vocab_size)
        return self.process.corrupt(x_0, t, noise=noise)

    def num_scored(self, length: int) -> int:
        """See base class; visible positions count, at a loss of zero."""
        return length


@final
@dataclass(frozen=True, slots=True)
class NextToken(PretrainMethod):
    """Autoregressive cross-entropy; the first token of a window is not predicted."""

    t_min: float = 0.0
    plan: Single = Single()

    def nats(
        self, model: Denoiser, tokens: TokenIds, t: Time, *, noise: Noise
    ) -> tuple[PerPosition, Positions]:
        """See base class; ``t`` and ``noise`` are not used."""
        del noise
        batch, length = tokens.shape
        every = torch.arange(batch * length, device=tokens.device)
        predecessors = every[every % length != length - 1]
        targets, no_noise = tokens.flatten()[predecessors + 1], torch.zeros_like(t)
        if torch.is_grad_enabled():
            raw = model(tokens, no_noise, at(predecessors))
            return F.cross_entropy(raw.float(), targets, reduction="none"), predecessors

        def cross_entropy(raw: Logits, targets: Positions) -> PerPosition:
            return -Softmax.of(raw).log_probs_at(targets)

        return model(tokens, no_noise, each(cross_entropy, predecessors, targets)), predecessors

    def num_scored(self, length: int) -> int:
        """See base class."""
        return length - 1
