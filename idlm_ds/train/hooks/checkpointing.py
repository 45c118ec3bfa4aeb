"""Checkpoints during training."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from idlm_ds.checkpoints.transaction import PREFIX
from idlm_ds.engine.saving import CheckpointWriter
from idlm_ds.errors import NumericsError, Preempted, UserError
from idlm_ds.train.loop import PhaseRecord
from idlm_ds.train.step import Program

if TYPE_CHECKING:  # imports DeepSpeed
    from idlm_ds.engine.dist import World

MINUTE = 60.0

CLOSING_S = 5.0
"""How long an unexpected error waits for a checkpoint that is being written."""


@final
class Watch:
    """What only the first rank's clock tells: when it is time to save, and that a write failed.

    The ranks meet in few of the phases after a checkpoint. Each time the first one says what it
    knows and in which phase they meet next: after as many phases again, but not beyond halfway to
    when a checkpoint will be due. So it is in time where phases become up to twice as long.
    """

    def __init__(
        self,
        writer: CheckpointWriter,
        *,
        minutes: float,
        world: "World",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start at the present time.

        Args:
            writer: What writes beside training.
            minutes: From one checkpoint to the next; 0 = never by time.
            world: The process group of training.
            clock: Tells the time, in seconds.
        """
        self._writer = writer
        self._seconds = minutes * MINUTE
        self._world = world
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Count from a checkpoint that has just been taken."""
        self._phases = 0
        self._began = self._clock()
        is_needed = self._seconds > 0 or self._writer.is_asynchronous
        self._meeting: float = 1 if is_needed else math.inf

    def is_due(self) -> bool:
        """Count one more phase, and tell whether it is time for a checkpoint.

        Collective: every rank must call after each phase.

        Raises:
            UserError: A checkpoint could not be written, the same on all ranks.
        """
        if self._writer.has_crashed:
            self._writer.wait()
        self._phases += 1
        if self._phases < self._meeting:
            return False
        known = self._known() if self._world.is_first else None
        has_failed, is_due, self._meeting = self._world.agree(known)
        if has_failed:
            self._writer.wait()
            raise UserError("a checkpoint could not be written")
        return is_due

    def _known(self) -> tuple[bool, bool, float]:
        """Return whether a write failed, whether a save is due, and the phase to meet in next."""
        spent, ahead = self._clock() - self._began, math.inf
        if self._seconds or self._writer.is_writing:
            ahead = self._phases
        if self._seconds:
            left = (self._seconds - spent) / max(spent, 1e-9) * self._phases
            ahead = min(ahead, max(1, math.floor(left / 2)))
        is_due = 0 < self._seconds <= spent
        return self._writer.has_failed, is_due, self._phases + ahead


@final
class Checkpointer:
    """A checkpoint every few updates of the main network, every few minutes, and at the end."""

    def __init__(
        self,
        writer: CheckpointWriter,
        program: Program,
        state: Mapping[str, Any],
        *,
        every: int,
        stop: int,
        watch: Watch,
    ) -> None:
        self._writer = writer
        self._program = program
        self._state = state
        self._every = every
        self._stop = stop
        self._watch = watch
        self._done = self._saved = 0
        """Phases done, and those of the latest checkpoint of this process."""

    @property
    def newest(self) -> Path | None:
        """The latest checkpoint that this process has taken; None before the first."""
        return self._writer.root / f"{PREFIX}{self._saved}" if self._saved else None

    def after_phase(self, record: PhaseRecord) -> None:
        """See ``Hook``. Collective: every rank must have this hook.

        Raises:
            UserError: A checkpoint could not be written, the same on all ranks.
        """
        self._done = record.step + 1
        is_main = record.phase == self._program.method.plan.main.value
        is_due = is_main and self._every > 0 and record.update % self._every == 0
        if self._watch.is_due() or is_due or self._done == self._stop:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of the phases done so far, unless it was written already.

        Collective: every rank must call.

        Raises:
            UserError: This or an earlier one could not be written, the same on all ranks.
        """
        if self._saved == self._done:
            return
        self._writer.save(self._done, self._program.learners, self._state)
        self._saved = self._done
        self._watch.restart()

    def finish(self) -> None:
        """Wait until the latest checkpoint is on disk.

        Raises:
            UserError: It could not be written, the same on all ranks.
        """
        self._writer.wait()

    def close(self) -> None:
        """See ``Hook``; a checkpoint that is being written is not given up.

        If this rank alone has failed, the others wait to hear of it and cannot end their parts.
        """
        error = sys.exc_info()[1]
        is_known = isinstance(error, UserError | NumericsError | Preempted | None)
        self._writer.join(None if is_known else CLOSING_S)
