"""Interfaces of diffusion families and of the networks they are given scores by."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from idlm_ds.kernels.projection import ScoreRows
from idlm_ds.kernels.rows import softmax_
from idlm_ds.noise import Noise
from idlm_ds.processes.soft_tokens import LazyProbs, SoftTokens
from idlm_ds.schedules.base import NoiseSchedule, ScheduleAt
from idlm_ds.tensor_types import (
    Logits,
    LogProbs,
    NetworkInput,
    PerPosition,
    PerToken,
    Positions,
    Probs,
    Time,
    TokenIds,
)

Operator: TypeAlias = Callable[..., Tensor]
"""A function of hidden states (P, D), the projection's weight (V, D), its bias (V,) or None, and
further arguments, such as a fused loss."""

Use: TypeAlias = Callable[..., Tensor]
"""A function of the scores (R, V) of a block of positions and of further tensors of R rows, which
returns R rows. It may overwrite the scores; the next block has their memory, so what it returns
must not."""


@runtime_checkable
class Head(Protocol):
    """Output end of a network, valid only during its forward pass."""

    def scores(self, positions: Positions, /) -> Logits:
        """Project the hidden states of some positions to raw float32 scores."""

    def fused(self, operator: Operator, positions: Positions, /, *inputs: Any) -> Tensor:
        """Run ``operator`` on the hidden states of some positions and the projection's weight.

        It runs where ZeRO-3 has gathered the weight, so scores need never exist as a whole.
        """

    def each(self, use: Use, positions: Positions, /, *rows: Tensor) -> Tensor:
        """Apply ``use`` to the raw float32 scores of successive blocks of positions.

        Args:
            use: Called with the scores of a block and the matching rows of ``rows``; with no
                positions, called once with none.
            positions: Any positions, also none. However many there are, the projection is used
                once.
            rows: Tensors with one row for each of ``positions``.

        Returns:
            The concatenated results.

        Gradient: none.
        """


Ask: TypeAlias = Callable[..., Tensor]
"""``ask(use, positions, *rows)`` is ``Head.each`` of a network that is shown the state at hand, on
scores that a sampler may have truncated."""

Read: TypeAlias = Callable[[Head], Tensor]
"""Function called at the end of a network's forward pass, inside of it."""


@runtime_checkable
class Denoiser(Protocol):
    """A denoising network, or anything with its call signature."""

    def __call__(self, x: NetworkInput, sigma: Time, read: Read, /) -> Tensor:
        """Run the trunk on ``x`` and return ``read(head)``.

        ``sigma`` is the total noise ``-log alpha_t``; networks that are not conditioned on time
        drop it. The head must be used the same number of times on every rank, because under
        ZeRO-3 each use may gather the weight of the projection. Networks nest: ``read`` may run
        another network and use both heads. Where a graph leads out of the inner network, the
        outer one must run with gradients enabled, since ZeRO-3 hooks what it returns.
        """


def at(positions: Positions) -> Read:
    """Read raw scores at some positions, all in one piece."""
    return lambda head: head.scores(positions)


def each(use: Use, positions: Positions, *rows: Tensor) -> Read:
    """Apply ``use`` to the scores at some positions, block by block; see ``Head.each``."""
    return lambda head: head.each(use, positions, *rows)


@dataclass(frozen=True, slots=True)
class Noisy:
    """One draw of the forward process, kept whole so that two networks can share it."""

    x_0: SoftTokens
    """Target of the loss; may carry a graph."""

    x_t: TokenIds
    """The hard state, which indexes the loss; never carries a graph."""

    x_in: NetworkInput
    """Input of networks: ``x_t``, or a family's relaxation of it, which may carry a graph."""

    at_t: ScheduleAt

    positions: Positions
    """Where the loss can differ from zero: the rows of every ``Logits`` argument beside this."""

    input_gain: Float[Tensor, "B L"] | None = None
    """Derivative of the scores of a soft ``x_in`` by the target's probability of the token."""

    def at(self, positions: Positions) -> "Noisy":
        """Return the part of this draw at some of its positions."""
        return replace(self, positions=positions)

    @property
    def hard_target(self) -> Int[Tensor, " P"]:
        """The clean token at each of ``positions``, where the sequence is hard."""
        return self.x_0.tokens.flatten()[self.positions]


class Process(ABC):
    """A diffusion family, as functions of scores.

    Implementations call no network and hold no parameters, no device and no process group.
    Randomness comes only from the ``Noise`` passed in.
    """

    vocab_size: int
    """Number of token ids, the mask id included where there is one."""

    schedule: NoiseSchedule
    """Schedule of the reverse chain; a family may train on another clock."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], **arguments: Any) -> "Process":
        """Build the family; one with settings of its own overrides this.

        Args:
            settings: A recipe's ``process``.
            arguments: Vocabulary and schedule, and the mask where there is one.
        """
        del settings
        return cls(**arguments)

    @abstractmethod
    def prior(self, batch: int, length: int, *, noise: Noise) -> TokenIds:
        """Draw from the distribution at t=1."""

    @abstractmethod
    def corrupt(self, x_0: SoftTokens, t: Time, *, noise: Noise) -> Noisy:
        """Draw the state at ``t`` of sequences distributed as ``x_0``.

        Gradient: none reaches ``x_t``.
        """

    @abstractmethod
    def loss(self, raw: Logits, noisy: Noisy) -> PerPosition:
        """Compute the negative ELBO of ``noisy.x_0`` at ``noisy.positions``; it is zero elsewhere.

        Units: nats. Precision: log-softmax in float32 or wider.
        """

    @abstractmethod
    def gap(self, raw_teacher: Logits, raw_fake: Logits, noisy: Noisy) -> PerPosition:
        """Compute teacher loss minus fake loss, terms cancelled before summing.

        Units: nats. Gradient: reaches ``noisy.x_0`` and both arguments.
        """

    def loss_slope(
        self, raw: Logits, noisy: Noisy, target: Logits | None = None
    ) -> tuple[PerPosition, Logits]:
        """Compute ``loss`` and its derivative by ``raw``, for a block of positions.

        This form differentiates ``loss``; families override it with a closed form.

        Args:
            raw: Scores of the network that learns at ``noisy.positions``; may be overwritten.
            noisy: The draw.
            target: Raw scores of the student there, whose answer is the target; may be
                overwritten. Without them the target is ``noisy.x_0.tokens``.

        Units: nats. Gradient: none.
        """
        x_0 = SoftTokens.hard(noisy.x_0.tokens, vocab_size=self.vocab_size)
        if target is not None:
            x_0 = SoftTokens(noisy.x_0.tokens, noisy.positions, self.answer_(target))
        with torch.enable_grad():
            leaf = raw.detach().requires_grad_()
            nats = self.loss(leaf, replace(noisy, x_0=x_0))
            (slope,) = torch.autograd.grad(nats.sum(), leaf)
        return nats.detach(), slope

    def gap_slope(
        self,
        raw_student: Logits,
        raw_teacher: Logits,
        raw_fake: Logits,
        noisy: Noisy,
        *,
        with_value: bool = True,
    ) -> tuple[PerPosition, Logits]:
        """Compute ``gap`` and its derivative by the student's scores, for a block of positions.

        This form differentiates ``gap``; families override it with a closed form.

        Args:
            raw_student: Scores of the student at ``noisy.positions``, all of which are soft; may
                be overwritten, like the next two.
            raw_teacher: Scores of the teacher there.
            raw_fake: Scores of the fake there.
            noisy: The draw.
            with_value: Whether the value is wanted; otherwise a constant that does not depend
                on the student may be missing from it.

        Units: nats. Gradient: none.
        """
        del with_value
        with torch.enable_grad():
            leaf = raw_student.detach().requires_grad_()
            nats = self.gap(raw_teacher, raw_fake, replace(noisy, x_0=self.relax(leaf, noisy)))
            (slope,) = torch.autograd.grad(nats.sum(), leaf)
        return nats.detach(), slope

    def gap_slopes(
        self, raw_student: Logits, raw_teacher: Logits, raw_fake: Logits, noisy: Noisy
    ) -> tuple[PerPosition, Logits, Logits, Logits]:
        """Compute ``gap`` and its derivatives by all three scores, for a block of positions.

        Wanted where teacher and fake are shown something that depends on the student. The
        arguments are those of ``gap_slope``.

        Units: nats. Gradient: none.
        """
        with torch.enable_grad():
            leaves = [r.detach().requires_grad_() for r in (raw_student, raw_teacher, raw_fake)]
            x_0 = self.relax(leaves[0], noisy)
            nats = self.gap(leaves[1], leaves[2], replace(noisy, x_0=x_0))
            student, teacher, fake = torch.autograd.grad(nats.sum(), leaves)
        return nats.detach(), student, teacher, fake

    def answer_(self, raw: Logits) -> Probs:
        """Turn scores into the distribution of the clean token, which may take their memory.

        Gradient: none.
        """
        scores = self.clean_scores_(raw)
        softmax_(scores)
        return scores

    def lazily(self, rows: ScoreRows, given: Noisy) -> SoftTokens:
        """Turn the scores of a student at ``given.positions`` into a soft clean sequence.

        Like ``relax``, but the distributions are computed where they are used.

        Gradient: none.
        """
        return SoftTokens(given.x_t, given.positions, LazyProbs(rows, self.answer_))

    @abstractmethod
    def predict(self, raw: Logits) -> LogProbs:
        """Turn a network's scores into log-probabilities of the clean token.

        Applied to its own result it changes nothing.

        Precision: float32 or wider.
        """

    def clean_scores_(self, raw: Logits) -> Logits:
        """Give everything that is no clean token the score minus infinity, in place.

        What ``predict`` is for losses, which need finite numbers and a normaliser.
        """
        return raw

    @abstractmethod
    def undecided(self, x_t: TokenIds) -> Positions:
        """Return the positions where a reverse step may still change ``x_t``."""

    def ignorance(self, x_t: TokenIds, sigma: Time) -> PerToken:
        """Measure how little the state tells of the clean text: in [0, 1], per position.

        It is the gate of a student's latent, ``max(0, 2u - 1)`` with u the expected share of
        positions that noise has replaced, ``1 - alpha_t``. That is the same at every position of
        a sequence, since the state does not say which ones were replaced.

        Precision: float32.
        """
        alpha = torch.exp(-sigma.double())
        gate = (1.0 - 2.0 * alpha).clamp(min=0.0).float()
        return gate[:, None].expand(x_t.shape)

    def relax(self, raw: Logits, noisy: Noisy) -> SoftTokens:
        """Turn a student's scores at ``noisy.positions`` into a soft clean sequence.

        Gradient: reaches ``raw``.
        """
        return SoftTokens(noisy.x_t, noisy.positions, self.predict(raw).exp())

    @abstractmethod
    def reverse(self, raw: Logits, x_t: TokenIds, t: Time, s: Time, positions: Positions) -> Probs:
        """Compute the probabilities of ``x_s`` given ``x_t`` at some positions, for ``s < t``.

        The dense form of ``step``, at the price of one row of V per position.
        """

    @abstractmethod
    def step(self, x_t: TokenIds, t: Time, s: Time, ask: Ask, *, noise: Noise) -> TokenIds:
        """Draw ``x_s`` given ``x_t``, asking for scores only where they decide something.

        Args:
            x_t: The state.
            t: Its time, one per sequence.
            s: The earlier time to go to.
            ask: Applies a function to scores at positions; called exactly once, maybe with none.
            noise: The streams of these sequences.
        """
