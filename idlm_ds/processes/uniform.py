"""Uniform diffusion: what the families that replace tokens by random ones share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from idlm_ds.kernels.long_rows import Softmax
from idlm_ds.kernels.uniform_gap import uniform_gap
from idlm_ds.kernels.uniform_gap.slopes import uniform_gap_slopes
from idlm_ds.kernels.uniform_loss import soft_uniform_loss
from idlm_ds.noise import Noise
from idlm_ds.processes.base import Ask, Noisy, Process
from idlm_ds.schedules.base import NoiseSchedule, ScheduleAt
from idlm_ds.tensor_types import Logits, LogProbs, PerPosition, Positions, Probs, Time, TokenIds

Answer: TypeAlias = Float64[Tensor, "P 2"]
"""Probability of the present token, and a token drawn from the answer."""


@dataclass(frozen=True, slots=True)
class Uniform(Process):
    """Tokens survive with probability ``alpha_t`` or become any of the V ids, equally often.

    No position shows whether it was replaced, so every one costs something and may change until
    the last step. Losses compare two distributions of the *noised* token, ``q`` of the target
    and ``q_f`` of the network's answer (UDLM, arXiv:2412.10193; the form with a KL and an
    Itakura-Saito term is derived in the README beside this file).
    """

    vocab_size: int
    schedule: NoiseSchedule
    is_unbiased: bool = field(default=False, kw_only=True)
    """Whether the student's gradient takes the weight ``1 / q_i`` of a gap for a constant.

    The hard state i is drawn from ``q``, which depends on the student, and no gradient passes
    through the draw. With the weight held fixed the derivative is right on average all the same,
    since ``sum_i q_i w / q_i`` has no ``q`` left; it varies more. Published code differentiates it.
    """

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], **arguments: Any) -> "Uniform":
        """See base class."""
        return cls(**arguments, is_unbiased=settings["unbiased"])

    def __post_init__(self) -> None:
        if self.vocab_size < 2:
            raise ValueError(f"vocab_size must be at least 2, got {self.vocab_size}")

    def prior(self, batch: int, length: int, *, noise: Noise) -> TokenIds:
        """See base class; any id, the mask's too where the tokenizer has one."""
        return (noise.uniform(length) * self.vocab_size).long().view(batch, length)

    def predict(self, raw: Logits) -> LogProbs:
        """See base class."""
        return raw.to(torch.promote_types(raw.dtype, torch.float32)).log_softmax(-1)

    def undecided(self, x_t: TokenIds) -> Positions:
        """See base class: all of them."""
        return torch.arange(x_t.numel(), device=x_t.device)

    def loss(self, raw: Logits, noisy: Noisy) -> PerPosition:
        """See base class; the continuous-time bound of arXiv:2412.10193 at one drawn t.

        ``-dalpha / (V alpha q_i) [KL(q | q_f) + d - log d - 1]`` with ``d = q_i / q_f_i`` and i the
        hard state, for hard and soft targets alike.
        """
        # Noised distributions above their common floor: rows (P, V).
        at = _PerPosition.of(noisy)
        lifted = self._lift(self.predict(raw), at)
        q_i = self._noised_pick(noisy, at)
        log_d = (q_i / at.floor(self.vocab_size)).log() - _entry(lifted, noisy)
        # Kullback-Leibler term plus Itakura-Saito term of the hard state.
        kl = self._lift_of_target(noisy, at) - self._expect(lifted, noisy, at)
        return self._weight(at, q_i) * (kl + torch.expm1(log_d) - log_d)

    def gap(self, raw_teacher: Logits, raw_fake: Logits, noisy: Noisy) -> PerPosition:
        """See base class; logs are subtracted before they are summed over the vocabulary.

        Gradient: reaches ``noisy.x_0``, the arguments, and through them the networks' input.
        """
        at = _PerPosition.of(noisy)
        teacher = self._lift(self.predict(raw_teacher), at)
        fake = self._lift(self.predict(raw_fake), at)
        advantage = teacher - fake
        q_i = self._noised_pick(noisy, at)
        inverse = torch.exp(-_entry(teacher, noisy)) - torch.exp(-_entry(fake, noisy))
        inner = self._expect(advantage, noisy, at)
        share = q_i / at.floor(self.vocab_size)
        weight = self._weight(at, q_i.detach() if self.is_unbiased else q_i)
        return weight * (_entry(advantage, noisy) - inner + share * inverse)

    def loss_slope(
        self, raw: Logits, noisy: Noisy, target: Logits | None = None
    ) -> tuple[PerPosition, Logits]:
        """See base class; closed for soft targets."""
        if target is None:
            return Process.loss_slope(self, raw, noisy)
        return soft_uniform_loss(raw, target, *self._of_rows(noisy))

    def gap_slope(
        self,
        raw_student: Logits,
        raw_teacher: Logits,
        raw_fake: Logits,
        noisy: Noisy,
        *,
        with_value: bool = True,
    ) -> tuple[PerPosition, Logits]:
        """See base class; the value costs nothing here."""
        del with_value
        raw = (raw_student, raw_teacher, raw_fake)
        return uniform_gap(*raw, *self._of_rows(noisy), is_unbiased=self.is_unbiased)

    def gap_slopes(
        self, raw_student: Logits, raw_teacher: Logits, raw_fake: Logits, noisy: Noisy
    ) -> tuple[PerPosition, Logits, Logits, Logits]:
        """See base class."""
        raw = (raw_student, raw_teacher, raw_fake)
        room = torch.empty_like(raw_teacher), torch.empty_like(raw_fake)
        rows = self._of_rows(noisy)
        return uniform_gap_slopes(*raw, *rows, is_unbiased=self.is_unbiased, room=room)

    def _of_rows(self, noisy: Noisy) -> tuple[PerPosition, PerPosition, PerPosition, Positions]:
        """Weight without ``1 / q_i``, alpha, floor and hard state of each row."""
        at = _PerPosition.of(noisy)
        weight = -at.dalpha / (self.vocab_size * at.alpha)
        state = noisy.x_t.flatten()[noisy.positions]
        return weight, at.alpha, at.floor(self.vocab_size), state

    def reverse(self, raw: Logits, x_t: TokenIds, t: Time, s: Time, positions: Positions) -> Probs:
        """See base class; Bayes' rule with the answer as prior of the clean token.

        Precision: float64.
        """
        chain = self._chain(t, s, positions // x_t.shape[1])
        here = x_t.flatten()[positions]
        f = self.predict(raw.double()).exp()
        f_i = f.gather(1, here[:, None])
        p_s = chain.model[:, None] * f + (chain.replace / self.vocab_size)[:, None]
        stay = self.vocab_size * chain.alpha_t[:, None] * f_i + chain.keep[:, None]
        p_s = p_s.scatter_add(1, here[:, None], stay)
        return p_s / p_s.sum(-1, keepdim=True)

    def step(self, x_t: TokenIds, t: Time, s: Time, ask: Ask, *, noise: Noise) -> TokenIds:
        """See base class.

        The posterior mixes staying, the network's answer and any token. How likely the last two
        are depends on the network, but has a bound that does not; positions above it stay, and
        only the others are projected. They are few: on the log-linear schedule about
        ``log(K) + 8`` per position over a whole run of K steps.

        Precision: see ``Softmax``.
        """
        length = x_t.shape[1]
        u, u_token = noise.uniform(length).flatten(), noise.uniform(length).flatten()
        every = self._chain(t, s, self.undecided(x_t) // length)
        bound = (every.model + every.replace) / (every.model + every.replace + every.keep)
        # Positions that may change are projected; all others stay whatever the network says.
        open_ = (u < bound).nonzero()[:, 0]

        chain = self._chain(t, s, open_ // length)
        here = x_t.flatten()[open_]

        def predict(raw: Logits, here: Positions, u: PerPosition) -> Answer:
            answer = Softmax.of(self.clean_scores_(raw))
            return torch.stack([answer.probs_at(here), answer.draw(u).double()], 1)

        # One number and one token of each answer; any id is a float64 without rounding.
        f_i, predicted = ask(predict, open_, here, u_token[open_]).unbind(1)
        total = self.vocab_size * chain.alpha_t * f_i + chain.keep + chain.model + chain.replace
        threshold = u[open_] * total
        # Mixture: the predicted token, any token, or the present one.
        any_token = (u_token[open_] * self.vocab_size).long()
        token = torch.where(threshold < chain.model, predicted.long(), any_token)
        token = torch.where(threshold < chain.model + chain.replace, token, here)
        x_s = x_t.clone(memory_format=torch.contiguous_format)
        x_s.view(-1)[open_] = token
        return x_s

    def _chain(self, t: Time, s: Time, row: Tensor) -> "_Mixture":
        at_t, at_s = self.schedule.at(t), self.schedule.target(s)
        model = at_t.masked - at_s.masked
        ratio_lost = model / at_s.alpha
        keep = at_t.alpha / at_s.alpha - at_t.alpha
        return _Mixture(at_t.alpha[row], keep[row], model[row], (ratio_lost * at_s.masked)[row])

    def _lift(self, log_probs: LogProbs, at: "_PerPosition") -> LogProbs:
        """Compute the log of ``alpha f + (1 - alpha) / V`` above its floor, the second term.

        The floor is common to all words and to both networks and cancels from every loss. Left in,
        float32 would round it alike everywhere, and near t=1 the rounding is divided by alpha.
        """
        ratio = (at.alpha / at.floor(self.vocab_size)).log().to(log_probs.dtype)[:, None]
        return torch.logaddexp(log_probs + ratio, torch.zeros_like(log_probs[:, :1]))

    def _noised_pick(self, noisy: Noisy, at: "_PerPosition") -> PerPosition:
        """Return the probability q of the hard state; float64, since it is divided by."""
        picked = noisy.x_0.pick(noisy.x_t, noisy.positions).double()
        return at.alpha * picked + at.floor(self.vocab_size)

    def _expect(self, values: LogProbs, noisy: Noisy, at: "_PerPosition") -> PerPosition:
        """Sum ``q_j values_j`` over the vocabulary."""
        inner = noisy.x_0.expect(values, noisy.positions).double()
        everywhere = values.sum(-1, dtype=torch.float64)
        return at.alpha * inner + at.floor(self.vocab_size) * everywhere

    def _lift_of_target(self, noisy: Noisy, at: "_PerPosition") -> PerPosition:
        """Sum ``q_j log(q_j / floor)``: what ``_expect`` of a perfect prediction would give."""
        floor = at.floor(self.vocab_size)
        top = at.alpha + floor

        def term(probs: Probs, which: Positions) -> Probs:
            alpha, least = at.alpha[which, None].to(probs.dtype), floor[which, None].to(probs.dtype)
            return (alpha * probs + least) * torch.log1p(alpha / least * probs)

        return noisy.x_0.summed(noisy.positions, torch.xlogy(top, top / floor), term)

    def _weight(self, at: "_PerPosition", q_i: PerPosition) -> PerPosition:
        return -at.dalpha / (self.vocab_size * at.alpha * q_i)


@dataclass(frozen=True, slots=True)
class _PerPosition:
    """A schedule read at the time of each position; float64."""

    alpha: Tensor
    dalpha: Tensor
    masked: Tensor

    @classmethod
    def of(cls, noisy: Noisy) -> "_PerPosition":
        row = noisy.positions // noisy.x_t.shape[1]
        at_t: ScheduleAt = noisy.at_t
        return cls(at_t.alpha.double()[row], at_t.dalpha.double()[row], at_t.masked.double()[row])

    def floor(self, vocab_size: int) -> Tensor:
        """Return the least probability of any token after noise."""
        return self.masked / vocab_size


@dataclass(frozen=True, slots=True)
class _Mixture:
    """Weights of a reverse step at each position, up to a factor common to all four.

    The token stays with ``V alpha_t f_i + keep``, is the network's answer with ``model`` and any
    token with ``replace``.
    """

    alpha_t: Tensor
    keep: Tensor
    model: Tensor
    replace: Tensor


def _entry(rows: LogProbs, noisy: Noisy) -> PerPosition:
    """Pick the entry of the hard state in each row; float64."""
    here = noisy.x_t.flatten()[noisy.positions]
    return rows.gather(1, here[:, None])[:, 0].double()
