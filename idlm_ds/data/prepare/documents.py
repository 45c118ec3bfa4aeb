"""Read documents from files, and say why a document is dropped."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from idlm_ds.data.prepare.bounded import COMPRESSED, DamagedError, TooLong, chunks, lines
from idlm_ds.errors import UserError

TEXTS = (".txt", ".jsonl")
KINDS = f"{', '.join(TEXTS)} (also {', '.join(COMPRESSED)}), .parquet"
BYTE_ORDER_MARK = "\ufeff"

TEXT = ("text",)
"""Default field of a record that holds its text."""

LONGEST = 4 << 20
"""Default limit of a document in bytes; encoding takes up to 500 times that much memory."""

ROWS_AT_ONCE = 16
"""Rows of a parquet file decoded at a time; each may hold the same large value."""

LARGEST_GROUP = 1 << 30
"""Limit of a parquet row group's text in bytes, since a group is decompressed whole."""


@dataclass(frozen=True, slots=True)
class KeptDocument:
    """A document that can be used."""

    texts: tuple[str, ...]
    """One text, or a prompt and its answer."""

    name: str | None = None
    """Value of the record's ``id``, if it has one."""

    is_repaired: bool = False
    """Whether a byte order mark was removed."""


@dataclass(frozen=True, slots=True)
class DroppedDocument:
    """A document that cannot be used, or the unreadable rest of a file."""

    reason: str
    file: str | None = None
    """Path of the file whose rest is unreadable."""


Record = KeptDocument | DroppedDocument


class DuplicateFilter:
    """Filter of documents whose name was seen before in the same file or data set.

    Memory: 8 bytes of hash per name, in a sorted array; recent names wait in a set until there
    are enough of them to sort.
    """

    RECENT = 1 << 20

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted = np.empty(0, np.uint64)

    def check(self, record: Record) -> Record:
        """Return the record, or a dropped one if its name was seen before."""
        if isinstance(record, DroppedDocument) or record.name is None:
            return record
        digest = hashlib.blake2b(record.name.encode("utf-8", "surrogatepass"), digest_size=8)
        name_hash = int.from_bytes(digest.digest(), "big")
        position = int(np.searchsorted(self._sorted, np.uint64(name_hash)))
        is_old = position < len(self._sorted) and int(self._sorted[position]) == name_hash
        if is_old or name_hash in self._recent:
            return DroppedDocument("duplicate id")
        self._recent.add(name_hash)
        # Merge the set into the sorted array once it is large.
        if len(self._recent) == self.RECENT:
            recent = np.fromiter(self._recent, np.uint64, self.RECENT)
            self._sorted = np.sort(np.concatenate([self._sorted, recent]))
            self._recent.clear()
        return record


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Options for reading documents; the hash of an unfinished preparation depends on the repr."""

    fields: tuple[str, ...] = TEXT
    """Field of the text, or fields of the prompt and the answer."""

    by_line: bool = False
    """Whether each line of a .txt file is a document, instead of the whole file."""

    longest: int = LONGEST
    """Limit of a document or a line, in bytes."""


def expand(paths: Sequence[Path], key: str) -> list[Path]:
    """Replace folders by the files in them, sorted by name.

    Raises:
        UserError: A path does not exist or is of no known kind.
    """
    files: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file() and _is_known(p))
        if path.is_dir() and not inside:
            raise UserError(f"{key}: {path} holds none of {KINDS}")
        files += inside if path.is_dir() else [path]
    for path in files:
        if not path.is_file():
            raise UserError(f"{key}: no such file or folder: {path}")
        if not _is_known(path):
            raise UserError(f"{key}: {path} is none of {KINDS}, nor a folder of them")
    return files


def _kind(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


def _is_known(path: Path) -> bool:
    return _kind(path) in TEXTS or path.suffix == ".parquet"


def read_documents(
    path: Path, reading: Reading, on_position: Callable[[int], None] = lambda _: None
) -> Iterator[Record]:
    """Read the documents of one file, duplicates marked.

    Raises:
        UserError: The file cannot be read at all.
    """
    try:
        yield from map(DuplicateFilter().check, _records(path, reading, on_position))
    except DamagedError as error:
        yield DroppedDocument(str(error), str(path))
    except OSError as error:
        raise UserError(f"--source: cannot read {path}: {error.strerror or error}") from error


def _records(path: Path, reading: Reading, on_position: Callable[[int], None]) -> Iterator[Record]:
    if path.suffix == ".parquet":
        yield from _parquet(path, reading, on_position)
    elif _kind(path) == ".jsonl":
        yield from _each_line(path, reading, on_position, _from_json)
    elif reading.by_line:
        yield from _each_line(path, reading, on_position, _from_line)
    else:
        yield _whole(chunks(path, on_position), reading)


def _each_line(
    path: Path,
    reading: Reading,
    on_position: Callable[[int], None],
    parse: Callable[[bytes, Reading], Record],
) -> Iterator[Record]:
    for line in lines(chunks(path, on_position), reading.longest):
        if isinstance(line, TooLong):
            yield DroppedDocument("too long")
        else:
            yield parse(line.removesuffix(b"\r"), reading)


def _whole(pieces: Iterable[bytes], reading: Reading) -> Record:
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > reading.longest:
            return DroppedDocument("too long")
    return _from_line(bytes(content), reading)


def _from_line(line: bytes, reading: Reading) -> Record:
    try:
        return check((line.decode("utf-8"),), reading)
    except UnicodeDecodeError:
        return DroppedDocument("not UTF-8")


def _from_json(line: bytes, reading: Reading) -> Record:
    if not line.strip():
        return DroppedDocument("empty")
    try:
        return from_mapping(json.loads(line.decode("utf-8").removeprefix(BYTE_ORDER_MARK)), reading)
    except UnicodeDecodeError:
        return DroppedDocument("not UTF-8")
    except (ValueError, RecursionError):
        return DroppedDocument("not JSON")


def _parquet(path: Path, reading: Reading, on_position: Callable[[int], None]) -> Iterator[Record]:
    size = path.stat().st_size
    try:
        # pre_buffer would read whole row groups ahead.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            if missing := set(reading.fields) - set(file.schema_arrow.names):
                yield DroppedDocument(f"no {' and no '.join(sorted(missing))}", str(path))
                return
            for group in range(file.num_row_groups):
                on_position(size * group // file.num_row_groups)
                yield from _row_group(file, group, reading)
    except (pa.ArrowException, OSError) as error:
        raise DamagedError("damaged") from error


def _row_group(file: Any, group: int, reading: Reading) -> Iterator[Record]:
    # Refuse a group whose text would not fit in memory, by what its metadata says.
    metadata = file.metadata.row_group(group)
    columns = (metadata.column(i) for i in range(metadata.num_columns))
    sizes = [c.total_uncompressed_size for c in columns if c.path_in_schema in reading.fields]
    if any(size > LARGEST_GROUP for size in sizes):
        yield DroppedDocument("too long")
        return
    # Decode a few rows at a time, and each value on its own, since one may not be UTF-8.
    names = [*reading.fields, *({"id"} & set(file.schema_arrow.names))]
    for batch in file.iter_batches(
        ROWS_AT_ONCE, row_groups=[group], columns=names, use_threads=False
    ):
        for row in range(batch.num_rows):
            try:
                values = {name: batch.column(name)[row].as_py() for name in names}
            except UnicodeDecodeError:
                yield DroppedDocument("not UTF-8")
                continue
            yield from_mapping(values, reading)


def from_mapping(raw: object, reading: Reading) -> Record:
    """Turn one record of a data set into a document."""
    if not isinstance(raw, Mapping):
        return DroppedDocument("wrong type")
    if missing := [field for field in reading.fields if raw.get(field) is None]:
        return DroppedDocument(f"no {' and no '.join(missing)}")
    texts = tuple(raw[field] for field in reading.fields)
    if not all(isinstance(text, str) for text in texts):
        return DroppedDocument("wrong type")
    name = raw.get("id")
    return check(texts, reading, str(name) if isinstance(name, str | int) else None)


def check(texts: tuple[str, ...], reading: Reading, name: str | None = None) -> Record:
    """Check that a tokenizer can be given a document's texts."""
    clean = tuple(text.removeprefix(BYTE_ORDER_MARK) for text in texts)
    for text in clean:
        if fault := _fault(text, reading.longest):
            return DroppedDocument(fault)
    return KeptDocument(clean, name, clean != texts)


def _fault(text: str, longest: int) -> str | None:
    if not text or text.isspace():
        return "empty"
    if "\0" in text:
        return "NUL"
    try:
        size = len(text) if text.isascii() else len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return "lone surrogate"
    return "too long" if size > longest else None
