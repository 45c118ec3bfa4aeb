"""Which checkpoints of a run stay, and the proof that one may go."""

import json
from collections.abc import Callable, Mapping
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


def unknown(key: str) -> None:
    """Say nothing of what a key of the recipe meant before recipes had it."""
    del key


@dataclass(frozen=True, slots=True)
class Owner:
    """A run, as its checkpoints describe it."""

    state: Mapping[str, Any]
    """JSON values with a recipe and fingerprints of inputs, as in ``STATE``."""

    before: Callable[[str], object] = unknown
    """What a key of the recipe meant before recipes had it."""

    def made(self, folder: Path) -> bool:
        """Tell whether a folder is a checkpoint of this run, and holds nothing else.

        Only then may it be deleted. A damaged one is still the run's; a folder with a file that
        its manifest does not list, of another recipe or of other data is not.
        """
        if not transaction.holds_nothing_else(folder):
            return False
        try:
            saved = json.loads((folder / STATE).read_text("utf-8"))
            recipe, inputs = (saved[part] if part in self.state else {} for part in PARTS)
            return inputs == self.state.get("inputs", {}) and self._is_own(recipe)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def _is_own(self, recipe: Mapping[str, Any]) -> bool:
        """Compare recipes; a key may be newer than the checkpoint."""
        own = self.state.get("recipe", {})
        missing = {key: self.before(key) for key in own.keys() - recipe.keys()}
        return bool({**recipe, **missing} == own)


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


def written_since(root: Path, time: float) -> bool:
    """Tell whether there is a checkpoint that was written after a time, in seconds since 1970."""
    return any(_time_of(folder) > time for folder in _folders(root).values())


def _time_of(folder: Path) -> float:
    """Return when a checkpoint was written, in seconds since 1970."""
    path = folder / STATE
    try:
        return float(json.loads(path.read_text("utf-8"))["time"])
    except (OSError, KeyError, TypeError, ValueError):
        # Of a run that did not note the time, or damaged.
        return (path if path.exists() else folder).stat().st_mtime


def _folders(root: Path) -> dict[int, Path]:
    return {step: root / f"{transaction.PREFIX}{step}" for step in transaction.steps(root)}
