"""Which checkpoints of a run stay, and the proof that one may go."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idlm_ds.checkpoints import transaction

STATE = "loop.json"
"""The file of a checkpoint that says which run made it."""

PARTS = ("recipe", "inputs")
"""What in it tells one run from another."""

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Retention:
    """The newest few checkpoints stay, and beside them one for every so many hours."""

    newest: int = 2
    """At least 1."""

    every_hours: float = 0.0
    """Hours from one that stays for good to the next; 0 = none stays for good."""

    def expired(self, written: Mapping[int, float]) -> list[int]:
        """Return the steps that go.

        Args:
            written: When each step was written, in seconds; ascending steps.
        """
        stays: set[int] = set(list(written)[-self.newest :])
        latest = None
        # From the oldest, so that what stayed once stays the next time as well.
        for step, time in written.items() if self.every_hours else ():
            if latest is None or time - latest >= self.every_hours * HOUR:
                stays.add(step)
                latest = time
        return [step for step in written if step not in stays]


@dataclass(frozen=True, slots=True)
class Owner:
    """A run, as its checkpoints describe it."""

    state: Mapping[str, Any]
    """JSON values with a recipe and fingerprints of inputs, as in ``STATE``."""

    def made(self, folder: Path) -> bool:
        """Tell whether a folder is a checkpoint of this run, and holds nothing else.

        Only then may it be deleted. A damaged one is still the run's; a folder with a file that
        its manifest does not list, of another recipe or of other data is not.
        """
        if not transaction.holds_nothing_else(folder):
            return False
        try:
            saved = json.loads((folder / STATE).read_text("utf-8"))
            own = {part: self.state[part] for part in PARTS if part in self.state}
            return all(_agree(saved[part], values) for part, values in own.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False


def _agree(saved: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Compare what both state; a key may be newer than the checkpoint."""
    return all(own[key] == value for key, value in saved.items() if key in own)


def prune(root: Path, retention: Retention, owner: Owner, *, newest: int) -> None:
    """Delete checkpoints of the run up to ``newest`` that need not stay, and all later ones.

    Later ones are damaged or belong to a future that a resumed run has left. Each vanishes in one
    rename first.
    """
    own = {step: folder for step, folder in _folders(root).items() if owner.made(folder)}
    later = [step for step in own if step > newest]
    times = {step: _time_of(f) for step, f in own.items() if step <= newest}
    for step in [*later, *retention.expired(times)]:
        transaction.discard(own[step])


def _time_of(folder: Path) -> float:
    """Return when a checkpoint was written, in seconds since 1970."""
    try:
        return float(json.loads((folder / STATE).read_text("utf-8"))["time"])
    except (KeyError, TypeError, ValueError):
        return (folder / STATE).stat().st_mtime  # of a run that did not note the time


def _folders(root: Path) -> dict[int, Path]:
    return {step: root / f"{transaction.PREFIX}{step}" for step in transaction.steps(root)}
