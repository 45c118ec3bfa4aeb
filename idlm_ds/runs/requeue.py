"""Whether a job that made room is worth another start.

A run that a signal ends leaves a note in its folder. Exit codes alone do not tell: srun reports the
highest of all tasks, 143 beside one that it had to kill, and torchrun makes 1 of every code.
"""

import json
from pathlib import Path
from typing import Any

from idlm_ds.checkpoints import transaction
from idlm_ds.files import write_atomic
from idlm_ds.startup import batch_job, batch_restarts

NOTE = "preempted.json"


def write_note(folder: Path, *, start: int, phase: int, rows: int) -> None:
    """Note what was done between a run's last start and the signal that ended it.

    Args:
        folder: The run's.
        start: Phases done at the start.
        phase: Phases done now, all of them saved.
        rows: Rows of the report stored since the start.
    """
    note = {**_this_start(), "start": start, "phase": phase, "rows": rows}
    write_atomic(folder / NOTE, (json.dumps(note, indent=2) + "\n").encode())


def why_not_again(folder: Path, code: int) -> str | None:
    """Say why a job must not be started again after its run in ``folder`` has ended.

    Args:
        folder: The run's.
        code: The exit code of whatever started it.

    Returns:
        The reason in a few words; None where it made room and had advanced.
    """
    note = _read(folder / NOTE)
    if any(note.get(key) != value for key, value in _this_start().items()):
        return f"exit code {code}, and no phase was saved for a signal since its last start"
    start, phase, rows = (note.get(key) for key in ("start", "phase", "rows"))
    steps = transaction.steps(folder / "checkpoints")
    if phase not in steps:
        return f"{folder}: there is no checkpoint of phase {phase}"
    if phase == start and not rows:
        return f"it did not advance from phase {start} since its last start"
    return None


def _this_start() -> dict[str, Any]:
    return {"job": batch_job(), "restarts": batch_restarts()}


def _read(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
