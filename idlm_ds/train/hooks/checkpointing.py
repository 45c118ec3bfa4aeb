"""Saving while a run goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from idlm_ds.engine.checkpoint import save_checkpoint
from idlm_ds.engine.dist import World
from idlm_ds.train.loop import PhaseRecord
from idlm_ds.train.program import Program


@final
class Checkpointer:
    """Saves every so many updates of the network that measures the run, and at its end."""

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

    def after_phase(self, record: PhaseRecord) -> None:
        """See ``Hook``. Collective: every rank must have this hook."""
        is_main = record.phase == self._program.main_phase.value
        is_due = is_main and self._every > 0 and record.update % self._every == 0
        if is_due or record.step + 1 == self._stop:
            save_checkpoint(
                self._root,
                record.step + 1,
                self._program.roles,
                self._state,
                world=self._world,
                keep=self._keep,
            )

    def close(self) -> None:
        """See ``Hook``."""
