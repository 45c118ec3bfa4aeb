"""Checkpoints during training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from idlm_ds.engine.checkpoint import save_checkpoint
from idlm_ds.engine.dist import World
from idlm_ds.train.loop import PhaseRecord
from idlm_ds.train.step import Program


@final
class Checkpointer:
    """A checkpoint every few updates of the main network, and at the end."""

    def __init__(
        self,
        root: Path,
        program: Program,
        state: Mapping[str, Any],
        *,
        every: int,
        keep: int,
        stop: int,
        world: World,
    ) -> None:
        self._root = root
        self._program = program
        self._state = state
        self._every = every
        self._keep = keep
        self._stop = stop
        self._world = world
        self._done = self._saved = 0
        """Phases done, and those of the latest checkpoint of this process."""

    def after_phase(self, record: PhaseRecord) -> None:
        """See ``Hook``. Collective: every rank must have this hook."""
        self._done = record.step + 1
        is_main = record.phase == self._program.method.plan.main.value
        is_due = is_main and self._every > 0 and record.update % self._every == 0
        if is_due or self._done == self._stop:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of the phases done so far, unless it was written already.

        Collective: every rank must call.
        """
        if self._saved == self._done:
            return
        save_checkpoint(
            self._root,
            self._done,
            self._program.learners,
            self._state,
            world=self._world,
            keep=self._keep,
        )
        self._saved = self._done

    def close(self) -> None:
        """See ``Hook``."""
