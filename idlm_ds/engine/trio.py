"""Three engines, of which one learns at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from torch import Tensor

from idlm_ds.engine.role import RoleEngine, StepReport
from idlm_ds.objectives.alternation import Phase
from idlm_ds.processes.base import Denoiser


@final
@dataclass(frozen=True, slots=True)
class Roles:
    """The three networks as plain callables, good for one phase only."""

    teacher: Denoiser
    fake: Denoiser
    student: Denoiser


@final
@dataclass(frozen=True, slots=True)
class EngineTrio:
    """The frozen teacher, the fake and the student."""

    teacher: RoleEngine
    fake: RoleEngine
    student: RoleEngine

    def active(self, phase: Phase) -> RoleEngine:
        """The engine that learns in ``phase``."""
        match phase:
            case Phase.FAKE:
                return self.fake
            case Phase.STUDENT:
                return self.student
            case _:
                raise ValueError(f"three engines have no phase {phase}")

    @contextmanager
    def learning(self, phase: Phase) -> Iterator[Roles]:
        """Open a phase: one engine learns, the other two may only transmit.

        Gradients still pass through the idle networks to their inputs, but reach none of their
        parameters, and dropout is on in the learning network alone.
        """
        active = self.active(phase)
        with active.learning() as forward:
            networks = [
                forward if role is active else role.module
                for role in (self.teacher, self.fake, self.student)
            ]
            try:
                yield Roles(*networks)
            finally:
                for role in (self.teacher, self.fake, self.student):
                    role.release()

    def backward(self, phase: Phase, loss: Tensor) -> None:
        """Add the gradient of a loss that the active network's own graph leads to."""
        self.active(phase).backward(loss)

    def backward_from(self, phase: Phase, output: Tensor, cotangent: Tensor) -> None:
        """Add the gradient of a loss of which only the derivative at ``output`` is known.

        No backward runs through two engines, which DeepSpeed does not support, and what teacher and
        fake stored is gone before the student's backward begins.
        """
        self.active(phase).backward_from(output, cotangent)

    def step(self, phase: Phase, *, lr: float) -> StepReport:
        """ReverseStep the active network."""
        return self.active(phase).step(lr)
