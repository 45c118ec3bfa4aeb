"""Absorbing diffusion: what the masked families share."""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias, final

import torch

from idlm_ds.kernels.long_rows import Softmax
from idlm_ds.kernels.rows import FORBIDDEN
from idlm_ds.noise import Noise
from idlm_ds.processes.base import Ask, Noisy, Process
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.schedules.base import NoiseSchedule
from idlm_ds.tensor_types import (
    Logits,
    LogProbs,
    PerPosition,
    PerToken,
    Positions,
    Probs,
    Time,
    TokenIds,
)

Slope: TypeAlias = tuple[PerPosition, Logits]
"""A loss and its derivative by scores."""


@final
@dataclass(frozen=True, slots=True)
class ClosedForms:
    """Losses of a masked family on blocks of raw scores; operators of ``kernels``."""

    soft: Callable[[Logits, Logits, PerPosition, int], Slope]
    """Of scores, of those whose softmax is the target, of weights and the mask's id."""

    hard: Callable[[Logits, Positions, PerPosition, int], Slope]
    """The same with ids as target."""

    gap: Callable[..., Slope]
    """Of scores of student, teacher and fake, of weights, the mask's id and ``with_value``."""


@dataclass(frozen=True, slots=True)
class Absorbing(Process):
    """Tokens survive with probability ``alpha_t`` or become the mask.

    A network answers only at masked positions; a visible token is its own answer, so it costs
    nothing and gets no gradient.
    """

    vocab_size: int
    schedule: NoiseSchedule
    mask_id: int

    closed: ClassVar[ClosedForms | None] = None
    """Losses with their derivatives, where a family has them in closed form."""

    def __post_init__(self) -> None:
        if not 0 <= self.mask_id < self.vocab_size:
            raise ValueError(f"mask_id must be in [0, {self.vocab_size}), got {self.mask_id}")

    def prior(self, batch: int, length: int, *, noise: Noise) -> TokenIds:
        """See base class; the prior is the all-mask sequence."""
        return torch.full((batch, length), self.mask_id, device=noise.device)

    def corrupt(self, x_0: SoftTokens, t: Time, *, noise: Noise) -> Noisy:
        """See base class.

        A soft position is drawn from its distribution, then masked: exactly a draw from
        ``alpha_t x_0 + (1 - alpha_t) mask``.
        """
        at_t, length = self.schedule.at(t), x_0.tokens.shape[1]
        # Whether a position is masked does not depend on its token: only visible ones are drawn.
        u_token = noise.uniform(length)
        is_masked = noise.uniform(length) < at_t.masked[:, None]
        tokens = x_0.draw(u_token, ~is_masked)
        x_t = torch.where(is_masked, self.mask_id, tokens)
        return Noisy(x_0=x_0, x_t=x_t, x_in=x_t, at_t=at_t, positions=_flat(is_masked))

    def predict(self, raw: Logits) -> LogProbs:
        """See base class; the mask is no answer."""
        wide = raw.to(torch.promote_types(raw.dtype, torch.float32))
        penalty = torch.zeros(self.vocab_size, dtype=wide.dtype, device=wide.device)
        penalty[self.mask_id] = FORBIDDEN
        return (wide + penalty).log_softmax(-1)

    def loss_slope(self, raw: Logits, noisy: Noisy, target: Logits | None = None) -> Slope:
        """See base class."""
        if self.closed is None:
            return Process.loss_slope(self, raw, noisy, target)
        weight = self._weight(noisy, raw.dtype)
        if target is not None:
            return self.closed.soft(raw, target, weight, self.mask_id)
        return self.closed.hard(raw, noisy.hard_target, weight, self.mask_id)

    def gap_slope(
        self,
        raw_student: Logits,
        raw_teacher: Logits,
        raw_fake: Logits,
        noisy: Noisy,
        *,
        with_value: bool = True,
    ) -> Slope:
        """See base class."""
        raw = (raw_student, raw_teacher, raw_fake)
        if self.closed is None:
            return Process.gap_slope(self, *raw, noisy, with_value=with_value)
        weight = self._weight(noisy, raw_student.dtype)
        return self.closed.gap(*raw, weight, self.mask_id, with_value=with_value)

    def clean_scores_(self, raw: Logits) -> Logits:
        """See base class; the mask is no answer."""
        raw[:, self.mask_id] = -math.inf
        return raw

    @abstractmethod
    def log_ratio(self, raw: Logits, log_r: PerPosition) -> LogProbs:
        """Compute the log ratio of each token's probability to the mask's, at time t.

        Args:
            raw: Scores at masked positions.
            log_r: ``log(alpha_t / (1 - alpha_t))`` at each of them, what true ratios sum to.
        """

    def undecided(self, x_t: TokenIds) -> Positions:
        """See base class: the masked ones."""
        return _flat(x_t == self.mask_id)

    def ignorance(self, x_t: TokenIds, sigma: Time) -> PerToken:
        """See base class; the state says which tokens are replaced.

        With m the masked share of a sequence, ``max(0, 2m - 1)`` at its masked positions and zero
        at visible ones.
        """
        del sigma
        is_masked = (x_t == self.mask_id).float()
        return is_masked * (2.0 * is_masked.mean(1, keepdim=True) - 1.0).clamp(min=0.0)

    def sigma_of(self, x_t: TokenIds) -> Time:
        """Return the total noise at which, on average, the same share of positions is masked."""
        share = (x_t == self.mask_id).double().mean(1)
        last = self.schedule.at(torch.ones_like(share)).sigma
        return torch.minimum(-torch.log1p(-share), last)

    def reverse(self, raw: Logits, x_t: TokenIds, t: Time, s: Time, positions: Positions) -> Probs:
        """See base class; eq. (7) of arXiv:2406.07524v2.

        Precision: float64.
        """
        # Masked: reveal a predicted token with probability ``unmask``, else stay masked.
        length = x_t.shape[1]
        unmask = self._unmask(t, s)[positions // length][:, None]
        p_s = unmask * self.predict(raw.double()).exp()
        p_s[:, self.mask_id] = 1.0 - unmask[:, 0]
        # Visible: the token stays.
        here = x_t.flatten()[positions]
        stay = torch.nn.functional.one_hot(here, self.vocab_size).to(p_s.dtype)
        return torch.where((here == self.mask_id)[:, None], p_s, stay)

    def step(self, x_t: TokenIds, t: Time, s: Time, ask: Ask, *, noise: Noise) -> TokenIds:
        """See base class.

        Whether a masked position is revealed does not depend on the network, so that is
        drawn first, and only revealed positions are projected.

        Precision: see ``Softmax``.
        """
        u_reveal, u_token = noise.uniform(x_t.shape[1]), noise.uniform(x_t.shape[1])
        revealed = _flat((x_t == self.mask_id) & (u_reveal < self._unmask(t, s)[:, None]))

        def draw(raw: Logits, u: PerPosition) -> Positions:
            return Softmax.of(self.clean_scores_(raw)).draw(u)

        x_s = x_t.clone(memory_format=torch.contiguous_format)
        x_s.view(-1)[revealed] = ask(draw, revealed, u_token.flatten()[revealed])
        return x_s

    def _unmask(self, t: Time, s: Time) -> Time:
        """Return the probability that a masked position is revealed between ``t`` and ``s``."""
        masked_t, masked_s = self.schedule.at(t).masked, self.schedule.target(s).masked
        return (masked_t - masked_s) / masked_t

    def _weight(self, noisy: Noisy, dtype: torch.dtype) -> PerPosition:
        """Return the ELBO's weight ``-dalpha / (1 - alpha)`` for each of ``noisy.positions``."""
        weight = -noisy.at_t.dalpha / noisy.at_t.masked
        return weight[noisy.positions // noisy.x_t.shape[1]].to(dtype)


def _flat(mask: torch.Tensor) -> Positions:
    return mask.flatten().nonzero()[:, 0]
