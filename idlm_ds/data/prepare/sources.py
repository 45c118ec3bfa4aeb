"""Where documents come from, and which of them are held out."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, final

from idlm_ds.data.index import HELDOUT, TRAIN
from idlm_ds.data.prepare.documents import Reading, Record, read_documents

Moved = Callable[[int], None]
"""Told how far reading has come."""


class Source(Protocol):
    """Documents that come in the same order each time."""

    @property
    def about(self) -> dict[str, Any]:
        """What it is, for the index."""
        ...

    @property
    def state(self) -> str:
        """Changes when what it holds does, so that an interrupted preparation notices."""
        ...

    @property
    def size(self) -> int | None:
        """Where reading ends, in the unit of ``read``; None if nobody knows."""
        ...

    def read(self, moved: Moved) -> Iterator[Record]:
        """Give all documents, also those that cannot be used."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Files:
    """Files on disk, one after another; position is counted in their bytes."""

    paths: Sequence[Path]
    how: Reading

    @property
    def about(self) -> dict[str, Any]:
        """See ``Source``."""
        files = [{"name": p.name, "bytes": p.stat().st_size} for p in self.paths]
        return {"files": files, **asdict(self.how), "fields": list(self.how.fields)}

    @property
    def state(self) -> str:
        """See ``Source``: names, sizes and times of change."""
        stats = [(str(p), p.stat()) for p in self.paths]
        content = [(name, s.st_size, s.st_mtime_ns) for name, s in stats]
        return hashlib.sha256(repr((content, self.how)).encode()).hexdigest()

    @property
    def size(self) -> int:
        """See ``Source``."""
        return sum(p.stat().st_size for p in self.paths)

    def read(self, moved: Moved) -> Iterator[Record]:
        """See ``Source``."""
        before = 0
        for path in self.paths:
            yield from read_documents(path, self.how, partial(_moved_from, before, moved))
            before += path.stat().st_size
            moved(before)


class Rule(Protocol):
    """Which documents are held out."""

    @property
    def about(self) -> dict[str, int]:
        """What it is, for the index."""
        ...

    def split(self, ordinal: int) -> str:
        """The split of a document by its place in the source."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Every:
    """One document of so many is held out, so that all parts of a corpus are represented."""

    stride: int

    @property
    def about(self) -> dict[str, int]:
        """See ``Rule``."""
        return {"every": self.stride}

    def split(self, ordinal: int) -> str:
        """See ``Rule``."""
        return HELDOUT if ordinal % self.stride == self.stride - 1 else TRAIN


@final
@dataclass(frozen=True, slots=True)
class From:
    """All documents from some place on are held out."""

    first: int

    @property
    def about(self) -> dict[str, int]:
        """See ``Rule``."""
        return {"from": self.first}

    def split(self, ordinal: int) -> str:
        """See ``Rule``."""
        return HELDOUT if ordinal >= self.first else TRAIN


def count_documents(source: Source, moved: Moved = lambda _: None) -> int:
    """Number of documents, usable or not."""
    return sum(1 for _ in source.read(moved))


@final
@dataclass(frozen=True, slots=True)
class Corpus:
    """Sources one after another, each with its rule."""

    members: Sequence[tuple[Source, Rule]]

    @property
    def about(self) -> list[dict[str, Any]]:
        """What it is, for the index."""
        return [{**source.about, "heldout": rule.about} for source, rule in self.members]

    @property
    def state(self) -> str:
        """See ``Source``."""
        content = [(source.state, rule.about) for source, rule in self.members]
        return hashlib.sha256(repr(content).encode()).hexdigest()

    @property
    def size(self) -> int | None:
        """See ``Source``."""
        sizes = [source.size or 0 for source, _ in self.members]
        return sum(sizes) if all(sizes) else None

    def read(self, moved: Moved) -> Iterator[tuple[str, Record]]:
        """Give all documents with their splits."""
        before = 0
        for source, rule in self.members:
            told = partial(_moved_from, before, moved)
            for ordinal, record in enumerate(source.read(told)):
                yield rule.split(ordinal), record
            before += source.size or 0


def _moved_from(start: int, moved: Moved, at: int) -> None:
    moved(start + at)
