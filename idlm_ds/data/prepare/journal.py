"""How far a preparation has come, so that an interrupted one goes on."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from idlm_ds.data.index import (
    COUNTS,
    FILE,
    JOURNAL,
    SPLITS,
    TOKENIZER,
    Shard,
    hash_file,
    shards_from,
)
from idlm_ds.errors import UserError
from idlm_ds.files import write_atomic


@dataclass(kw_only=True, slots=True)
class Journal:
    """What is finished, and how to go on after it."""

    settings: Mapping[str, Any]
    """What the preparation was asked for; a run that asks for anything else cannot go on."""

    next: int = 0
    """The first document that is in no finished shard."""

    carry: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in SPLITS})
    """Tokens of each split that come before that document's."""

    shards: dict[str, list[Shard]] = field(default_factory=lambda: {name: [] for name in SPLITS})
    truncated: int = 0
    unanswered: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    """Documents of each split whose prompt left no room for an answer."""

    def write(self, folder: Path) -> None:
        """Say that everything so far is finished."""
        write_atomic(folder / JOURNAL, json.dumps(asdict(self)).encode())


def find_journal(folder: Path, settings: Mapping[str, Any]) -> Journal:
    """The journal of an interrupted preparation, or a new one.

    Raises:
        UserError: It was begun with other settings, or what it calls finished was altered.
    """
    path = folder / JOURNAL
    if not path.is_file():
        return Journal(settings=settings)
    try:
        raw = json.loads(path.read_text("utf-8"))
        raw["shards"] = {name: list(shards_from(raw["shards"][name])) for name in SPLITS}
        journal = Journal(**raw)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"--output: {path} is damaged; start over with --fresh") from error
    for key, value in settings.items():
        if (was := journal.settings.get(key)) != value:
            raise UserError(
                f"--output: {folder} was begun with another {key}: {_short(was)}, now "
                f"{_short(value)}; start over with --fresh"
            )
    _check_finished(journal, folder)
    return journal


def _check_finished(journal: Journal, folder: Path) -> None:
    for part in (p for name in SPLITS for shard in journal.shards[name] for p in shard.parts):
        path = folder / part.file
        if not path.is_file() or hash_file(path) != part.sha256:
            raise UserError(
                f"--output: {path} is missing or was altered since; start over with --fresh"
            )


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."


def clear(folder: Path) -> None:
    """Delete prepared data, finished or not, and nothing else."""
    for name in (FILE, JOURNAL, COUNTS):
        (folder / name).unlink(missing_ok=True)
    for pattern in ("train-*.bin", "train-*.spans", "heldout-*.bin", "heldout-*.spans", ".*.tmp"):
        for path in folder.glob(pattern):
            path.unlink()
    shutil.rmtree(folder / TOKENIZER, ignore_errors=True)
