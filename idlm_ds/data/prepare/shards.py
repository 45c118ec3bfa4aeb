"""Rows into files, and the journal that says which are finished."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from idlm_ds.data.index import COUNTS, SPLITS, Part, Shard
from idlm_ds.data.prepare.journal import Journal
from idlm_ds.data.prepare.packing import Packed, Packer
from idlm_ds.files import write_atomic

COUNTED_AT_ONCE = 1 << 22


class ShardWriter:
    """Collects rows and writes them when there are enough for a shard.

    The shards of both splits end at the same document, so that one number and the tokens carried
    over it say where an interrupted preparation goes on.
    """

    def __init__(self, folder: Path, journal: Journal, *, dtype: str, shard_bytes: int) -> None:
        self._folder = folder
        self._journal = journal
        self._dtype = dtype
        self._enough = shard_bytes
        self._held: dict[str, list[Packed]] = {name: [] for name in SPLITS}

    @property
    def is_full(self) -> bool:
        """Whether there is enough for a shard."""
        held = (packed.rows.nbytes for name in SPLITS for packed in self._held[name])
        return sum(held) >= self._enough

    def add(self, split: str, packed: Packed) -> None:
        """Hold some rows."""
        self._held[split].append(packed)

    def commit(self, stop: int, packers: Mapping[str, Packer]) -> None:
        """Write what is held, then say so in the journal.

        Args:
            stop: The first document that is not in it.
            packers: They carry the tokens that are in no row yet.
        """
        journal = self._journal
        for split in SPLITS:
            held, self._held[split] = self._held[split], []
            journal.truncated += sum(packed.truncated for packed in held)
            journal.unanswered[split] += sum(packed.unanswered for packed in held)
            if any(len(packed.rows) for packed in held):
                journal.shards[split].append(self._write(split, held))
            journal.carry[split] = packers[split].carry
        journal.next = stop
        journal.write(self._folder)

    def _write(self, split: str, held: list[Packed]) -> Shard:
        stem = f"{split}-{len(self._journal.shards[split]):05d}"
        rows = np.concatenate([packed.rows for packed in held])
        tokens = self._file(f"{stem}.bin", rows.astype(self._dtype, copy=False))
        spans = [packed.spans for packed in held if packed.spans is not None]
        if not spans:
            return Shard(len(rows), tokens)
        return Shard(len(rows), tokens, self._file(f"{stem}.spans", np.concatenate(spans)))

    def _file(self, name: str, numbers: np.ndarray) -> Part:
        return write_part(self._folder, name, numbers)

    def count(self, size: int) -> Part:
        """Count the tokens of all shards into a file of their own."""
        counts = np.zeros(size, np.int64)
        for shard in (s for split in SPLITS for s in self._journal.shards[split]):
            tokens = np.memmap(self._folder / shard.tokens.file, self._dtype, mode="r")
            for start in range(0, len(tokens), COUNTED_AT_ONCE):
                piece = tokens[start : start + COUNTED_AT_ONCE]
                counts += np.bincount(piece, minlength=size)
        return write_part(self._folder, COUNTS, counts.astype("<i8"))


def write_part(folder: Path, name: str, numbers: np.ndarray) -> Part:
    """Write one file of numbers."""
    content = numbers.tobytes()
    write_atomic(folder / name, content)
    return Part(name, len(content), hashlib.sha256(content).hexdigest())
