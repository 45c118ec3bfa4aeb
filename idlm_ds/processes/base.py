"""What a diffusion family provides: corruption, losses, reverse step."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.schedules.base import NoiseSchedule, ScheduleAt
from idlm_ds.tensor_types import (
    Logits,
    LogProbs,
    NetworkInput,
    PerPosition,
    Positions,
    Probs,
    Time,
    TokenIds,
)

Project: TypeAlias = Callable[[Tensor], Tensor]
"""Positions (P,) to raw scores (P, V): the vocabulary projection, applied where it is asked for."""

Readout: TypeAlias = Callable[[Project], Tensor]
"""What a caller wants from a network: runs inside its forward, once the hidden states are there."""


@runtime_checkable
class Denoiser(Protocol):
    """A network, or anything that can stand in for one."""

    def __call__(self, x: NetworkInput, sigma: Time, readout: Readout, /) -> Tensor:
        """Run the trunk on ``x`` and return ``readout(project)``.

        ``sigma`` is the total noise ``-log alpha_t``; networks that are not conditioned on time
        drop it. The projection must be called the same number of times on every rank, because
        under ZeRO-3 each call may gather its weight.
        """
        ...


def at(positions: Positions) -> Readout:
    """Read raw scores at some positions, all in one piece."""
    return lambda project: project(positions)


@dataclass(frozen=True, slots=True)
class Noisy:
    """One draw of the forward process, kept whole so that two networks can share it."""

    x_0: SoftTokens
    """What the loss compares with; may carry a graph."""

    x_t: TokenIds
    """The hard state, which indexes the loss; never carries a graph."""

    x_in: NetworkInput
    """What networks are shown: ``x_t``, or a family's relaxation of it, which may carry a graph."""

    at_t: ScheduleAt

    positions: Positions
    """Where the loss can differ from zero: the rows of every ``Logits`` argument beside this."""


class Process(ABC):
    """A diffusion family, as functions of scores.

    Implementations call no network and hold no parameters, no device and no process group.
    Randomness comes only from the ``Noise`` passed in.
    """

    vocab_size: int
    """Number of token ids, the mask id included where there is one."""

    schedule: NoiseSchedule
    """What the reverse chain walks on; a family may train on another clock."""

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
        """Negative ELBO of ``noisy.x_0`` at ``noisy.positions``; it is zero elsewhere.

        Units: nats. Precision: log-softmax in float32 or wider.
        """

    @abstractmethod
    def gap(self, raw_teacher: Logits, raw_fake: Logits, noisy: Noisy) -> PerPosition:
        """Loss under the teacher minus loss under the fake, terms cancelled before summing.

        Units: nats. Gradient: reaches ``noisy.x_0`` and both arguments.
        """

    @abstractmethod
    def predict(self, raw: Logits) -> LogProbs:
        """Turn a network's scores into log-probabilities of the clean token.

        Applied to its own result it changes nothing.

        Precision: float32 or wider.
        """

    @abstractmethod
    def undecided(self, x_t: TokenIds) -> Positions:
        """Where a reverse step may still change ``x_t``."""

    @abstractmethod
    def relax(self, raw: Logits, noisy: Noisy) -> SoftTokens:
        """Turn a student's scores at ``noisy.positions`` into a soft clean sequence.

        Gradient: reaches ``raw``.
        """

    @abstractmethod
    def reverse(self, raw: Logits, x_t: TokenIds, t: Time, s: Time, positions: Positions) -> Probs:
        """Probabilities of ``x_s`` given ``x_t`` at some positions, for ``s < t``.

        The dense form of ``step``: what is true, at the price of one row of V per position.
        """

    @abstractmethod
    def step(
        self, x_t: TokenIds, t: Time, s: Time, ask: Callable[[Positions], Logits], *, noise: Noise
    ) -> TokenIds:
        """Draw ``x_s`` given ``x_t``, asking for scores only where they decide something.

        Args:
            x_t: The state.
            t: Its time, one per sequence.
            s: The earlier time to go to.
            ask: Scores at positions; called exactly once, maybe with none.
            noise: The streams of these sequences.
        """
