"""Sources of documents, and the rules that split them into training and held-out ones."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, final

from idlm_ds.data.index import HELDOUT, TRAIN
from idlm_ds.data.prepare.documents import Reading, Record, read_documents

OnPosition = Callable[[int], None]
"""Callback for the position that reading has reached."""


class DocumentSource(Protocol):
    """Documents in an order that is the same on every read."""

    @property
    def description(self) -> dict[str, Any]:
        """Entry of the source in the index."""

    @property
    def state(self) -> str:
        """Value that changes with the content, so that an interrupted preparation notices."""

    @property
    def size(self) -> int | None:
        """Last position of ``read``; None if unknown."""

    def read(self, on_position: OnPosition) -> Iterator[Record]:
        """Yield all documents, the unusable ones included."""


@final
@dataclass(frozen=True, slots=True)
class FileSource:
    """Files on disk, one after another; positions are bytes."""

    paths: Sequence[Path]
    reading: Reading

    @property
    def description(self) -> dict[str, Any]:
        """See ``DocumentSource``."""
        files = [{"name": p.name, "bytes": p.stat().st_size} for p in self.paths]
        return {"files": files, **asdict(self.reading), "fields": list(self.reading.fields)}

    @property
    def state(self) -> str:
        """See ``DocumentSource``; a hash of names, sizes, modification times and options."""
        stats = [(str(p), p.stat()) for p in self.paths]
        content = [(name, s.st_size, s.st_mtime_ns) for name, s in stats]
        return hashlib.sha256(repr((content, self.reading)).encode()).hexdigest()

    @property
    def size(self) -> int:
        """See ``DocumentSource``."""
        return sum(p.stat().st_size for p in self.paths)

    def read(self, on_position: OnPosition) -> Iterator[Record]:
        """See ``DocumentSource``."""
        offset = 0
        for path in self.paths:
            yield from read_documents(path, self.reading, partial(_shifted, offset, on_position))
            offset += path.stat().st_size
            on_position(offset)


@final
@dataclass(frozen=True, slots=True)
class SplitRule:
    """Rule that decides which documents of a source are held out.

    ``every``: one document in ``number``, so that all parts of a corpus are represented;
    ``from``: all documents from ``number`` on; ``all``: all if ``number`` is 1, none if it is 0.
    """

    kind: Literal["every", "from", "all"]
    number: int

    @property
    def description(self) -> dict[str, int]:
        """Entry of the rule in the index."""
        return {self.kind: self.number}

    def split(self, ordinal: int) -> str:
        """Return the split of the document at this place in the source."""
        match self.kind:
            case "every":
                is_heldout = ordinal % self.number == self.number - 1
            case "from":
                is_heldout = ordinal >= self.number
            case "all":
                is_heldout = self.number == 1
        return HELDOUT if is_heldout else TRAIN


def count_documents(source: DocumentSource) -> int:
    """Count the documents of a source, the unusable ones included."""
    return sum(1 for _ in source.read(lambda _: None))


@final
@dataclass(frozen=True, slots=True)
class Corpus:
    """Sources one after another, each with its split rule."""

    members: Sequence[tuple[DocumentSource, SplitRule]]

    @property
    def description(self) -> list[dict[str, Any]]:
        """Entries of all sources in the index."""
        return [
            {**source.description, "heldout": rule.description} for source, rule in self.members
        ]

    @property
    def state(self) -> str:
        """See ``DocumentSource``."""
        content = [(source.state, rule.description) for source, rule in self.members]
        return hashlib.sha256(repr(content).encode()).hexdigest()

    @property
    def size(self) -> int | None:
        """See ``DocumentSource``."""
        sizes = [source.size or 0 for source, _ in self.members]
        return sum(sizes) if all(sizes) else None

    def read(self, on_position: OnPosition) -> Iterator[tuple[str, Record]]:
        """Yield all documents with their splits."""
        offset = 0
        for source, rule in self.members:
            for ordinal, record in enumerate(source.read(partial(_shifted, offset, on_position))):
                yield rule.split(ordinal), record
            offset += source.size or 0


def _shifted(offset: int, on_position: OnPosition, position: int) -> None:
    on_position(offset + position)
