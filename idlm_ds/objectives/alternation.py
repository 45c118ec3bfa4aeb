"""Alternation of phases: which network learns at each step."""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, final


class Phase(Enum):
    """The one network that learns."""

    FAKE = "fake"
    STUDENT = "student"
    PRETRAIN = "pretrain"

    @property
    def learner(self) -> str:
        """The role of the network that learns."""
        return "model" if self is Phase.PRETRAIN else self.value


@final
@dataclass(frozen=True, slots=True)
class Alternation:
    """``fake_steps`` updates of the fake, then one of the student, repeated.

    The fake goes first: while it equals the teacher the student's gradient is exactly zero.
    """

    fake_steps: int = 1
    main: Phase = Phase.STUDENT
    """The phase whose updates measure the length of the run."""

    def __post_init__(self) -> None:
        if self.fake_steps < 1:
            raise ValueError(f"fake_steps must be at least 1, got {self.fake_steps}")

    @property
    def cycle(self) -> int:
        """Number of phases from one student update to the next."""
        return self.fake_steps + 1

    def phase(self, step: int) -> Phase:
        """Return the phase of step ``step``, counted from 0."""
        return Phase.STUDENT if step % self.cycle == self.fake_steps else Phase.FAKE

    def updates(self, phase: Phase, step: int) -> int:
        """Count the steps before ``step`` whose phase was ``phase``."""
        students = step // self.cycle
        return students if phase is Phase.STUDENT else step - students


@final
@dataclass(frozen=True, slots=True)
class Single:
    """A single learning network: every phase is the same."""

    main: Phase = Phase.PRETRAIN
    cycle: int = 1

    def phase(self, step: int) -> Phase:
        """See ``Alternation.phase``."""
        del step
        return self.main

    def updates(self, phase: Phase, step: int) -> int:
        """See ``Alternation.updates``."""
        del phase
        return step


PhasePlan: TypeAlias = Alternation | Single
"""Which network learns at each step."""
