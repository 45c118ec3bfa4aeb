"""Write rows into shards, and the journal from which an interrupted preparation resumes."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from idlm_ds.data.index import (
    COUNTS_FILE,
    INDEX_FILE,
    JOURNAL_FILE,
    SPLITS,
    TOKENIZER_FOLDER,
    FileRecord,
    Shard,
    hash_file,
    shards_from,
)
from idlm_ds.data.prepare.packing import PackedRows, Packer
from idlm_ds.errors import UserError
from idlm_ds.files import write_atomic

COUNTED_AT_ONCE = 1 << 22
"""Tokens that are counted at a time."""


@dataclass(kw_only=True, slots=True)
class Journal:
    """Finished shards of a preparation, and the state from which it continues."""

    settings: Mapping[str, Any]
    """Settings of the preparation; it can only be resumed with equal ones."""

    next: int = 0
    """Number of the first document that is in no finished shard."""

    carry: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in SPLITS})
    """Tokens of each split that precede that document and are in no row yet."""

    shards: dict[str, list[Shard]] = field(default_factory=lambda: {name: [] for name in SPLITS})
    truncated: int = 0
    unanswered: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    """Documents of each split whose prompt left no room for an answer."""

    def write(self, folder: Path) -> None:
        """Write the journal, which makes everything so far count as finished."""
        write_atomic(folder / JOURNAL_FILE, json.dumps(asdict(self)).encode())


def open_journal(folder: Path, settings: Mapping[str, Any]) -> Journal:
    """Read the journal of an interrupted preparation, or start a new one.

    Raises:
        UserError: It was begun with other settings, or a finished shard was altered.
    """
    path = folder / JOURNAL_FILE
    if not path.is_file():
        return Journal(settings=settings)
    try:
        raw = json.loads(path.read_text("utf-8"))
        raw["shards"] = {name: list(shards_from(raw["shards"][name])) for name in SPLITS}
        journal = Journal(**raw)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"--output: {path} is damaged; start over with --fresh") from error
    # Other settings, or altered shards, would give rows of two kinds.
    for key, value in settings.items():
        if (previous := journal.settings.get(key)) != value:
            raise UserError(
                f"--output: {folder} was begun with another {key}: {_short(previous)}, now "
                f"{_short(value)}; start over with --fresh"
            )
    _check_finished(journal, folder)
    return journal


def _check_finished(journal: Journal, folder: Path) -> None:
    for record in (f for name in SPLITS for shard in journal.shards[name] for f in shard.files):
        path = folder / record.file
        if not path.is_file() or hash_file(path) != record.sha256:
            raise UserError(
                f"--output: {path} is missing or was altered since; start over with --fresh"
            )


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."


class ShardWriter:
    """Collects rows and writes them once they fill a shard.

    The shards of both splits end at the same document, so one document number and the carried
    tokens are all that an interrupted preparation needs to resume.
    """

    def __init__(self, folder: Path, journal: Journal, *, dtype: str, shard_bytes: int) -> None:
        self._folder = folder
        self._journal = journal
        self._dtype = dtype
        self._shard_bytes = shard_bytes
        self._pending: dict[str, list[PackedRows]] = {name: [] for name in SPLITS}

    @property
    def is_full(self) -> bool:
        """Whether the collected rows fill a shard."""
        sizes = (packed.rows.nbytes for name in SPLITS for packed in self._pending[name])
        return sum(sizes) >= self._shard_bytes

    def add(self, split: str, packed: PackedRows) -> None:
        """Collect rows of a split."""
        self._pending[split].append(packed)

    def commit(self, stop: int, packers: Mapping[str, Packer]) -> None:
        """Write the collected rows, then record them in the journal.

        Args:
            stop: Number of the first document that is not in these rows.
            packers: Packers of both splits, with the tokens that are in no row yet.
        """
        journal = self._journal
        # Both splits are written up to the same document.
        for split in SPLITS:
            pending, self._pending[split] = self._pending[split], []
            journal.truncated += sum(packed.truncated for packed in pending)
            journal.unanswered[split] += sum(packed.unanswered for packed in pending)
            if any(len(packed.rows) for packed in pending):
                journal.shards[split].append(self._write(split, pending))
            journal.carry[split] = packers[split].carry
        # The journal is written last: shards it does not name are written again after a crash.
        journal.next = stop
        journal.write(self._folder)

    def _write(self, split: str, pending: list[PackedRows]) -> Shard:
        stem = f"{split}-{len(self._journal.shards[split]):05d}"
        rows = np.concatenate([packed.rows for packed in pending])
        tokens = write_array(self._folder, f"{stem}.bin", rows.astype(self._dtype, copy=False))
        spans = [packed.spans for packed in pending if packed.spans is not None]
        if not spans:
            return Shard(len(rows), tokens)
        spans_file = write_array(self._folder, f"{stem}.spans", np.concatenate(spans))
        return Shard(len(rows), tokens, spans_file)

    def count_tokens(self, num_ids: int) -> FileRecord:
        """Count how often each token occurs in all shards, and write the counts to a file."""
        counts = np.zeros(num_ids, np.int64)
        for shard in (s for split in SPLITS for s in self._journal.shards[split]):
            # The shard is read in pieces, since bincount copies its input to 64-bit integers.
            tokens = np.memmap(self._folder / shard.tokens.file, self._dtype, mode="r")
            for start in range(0, len(tokens), COUNTED_AT_ONCE):
                piece = tokens[start : start + COUNTED_AT_ONCE]
                counts += np.bincount(piece, minlength=num_ids)
        return write_array(self._folder, COUNTS_FILE, counts.astype("<i8"))


def write_array(folder: Path, name: str, array: np.ndarray) -> FileRecord:
    """Write the bytes of an array to a file."""
    content = array.tobytes()
    write_atomic(folder / name, content)
    return FileRecord(name, len(content), hashlib.sha256(content).hexdigest())


def delete_prepared(folder: Path) -> None:
    """Delete prepared data, finished or not, and nothing else."""
    for name in (INDEX_FILE, JOURNAL_FILE, COUNTS_FILE):
        (folder / name).unlink(missing_ok=True)
    for pattern in ("train-*.bin", "train-*.spans", "heldout-*.bin", "heldout-*.spans", ".*.tmp"):
        for path in folder.glob(pattern):
            path.unlink()
    shutil.rmtree(folder / TOKENIZER_FOLDER, ignore_errors=True)
