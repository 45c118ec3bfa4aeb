"""Documents out of anything, and why others were left."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from idlm_ds.data.prepare.bounded import PACKED, DamagedError, TooLong, chunks, lines
from idlm_ds.errors import UserError

TEXTS = (".txt", ".jsonl")
KINDS = f"{', '.join(TEXTS)} (also {', '.join(PACKED)}), .parquet"
BYTE_ORDER_MARK = "\ufeff"

TEXT = ("text",)
"""Where the text of a record is if nobody says otherwise."""

LONGEST = 4 << 20
"""Bytes of a document; encoding one can take five hundred times its size."""

ROWS_AT_ONCE = 16
"""Rows of a parquet file held at a time; one value may stand in all of them."""

LARGEST_GROUP = 1 << 30
"""Bytes of text a row group of a parquet file may say it has; it would be held whole."""


@dataclass(frozen=True, slots=True)
class Found:
    """A document."""

    texts: tuple[str, ...]
    """One text, or a prompt and its answer."""

    name: str | None = None
    """What tells it from all others, where it has such a thing."""

    is_repaired: bool = False
    """Whether a byte order mark was taken away."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A document that cannot be used, or all that could not be read of a file."""

    reason: str
    file: str | None = None
    """The file, if the rest of it is lost."""


Record = Found | Lost


class Distinct:
    """Drops documents that come twice in a file or a data set, by their names.

    Eight bytes of a hash are kept of each name.
    """

    RECENT = 1 << 20

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted = np.empty(0, np.uint64)

    def take(self, record: Record) -> Record:
        """The record, or what it is if its name was seen before."""
        if isinstance(record, Lost) or record.name is None:
            return record
        digest = hashlib.blake2b(record.name.encode("utf-8", "surrogatepass"), digest_size=8)
        name = int.from_bytes(digest.digest(), "big")
        place = int(np.searchsorted(self._sorted, np.uint64(name)))
        is_old = place < len(self._sorted) and int(self._sorted[place]) == name
        if is_old or name in self._recent:
            return Lost("duplicate id")
        self._recent.add(name)
        if len(self._recent) == self.RECENT:
            recent = np.fromiter(self._recent, np.uint64, self.RECENT)
            self._sorted = np.sort(np.concatenate([self._sorted, recent]))
            self._recent.clear()
        return record


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How documents are found in files."""

    fields: tuple[str, ...] = TEXT
    """Where the text is, or the prompt and the answer."""

    by_line: bool = False
    """Whether each line of a .txt file is a document, or the whole file."""

    longest: int = LONGEST
    """Most bytes of a document or a line."""


def expand(paths: Sequence[Path], key: str) -> list[Path]:
    """Files as they are, and those inside folders in the order of their names.

    Raises:
        UserError: One does not exist or is of no known kind.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file() and _is_known(p))
        if path.is_dir() and not inside:
            raise UserError(f"{key}: {path} holds none of {KINDS}")
        found += inside if path.is_dir() else [path]
    for path in found:
        if not path.is_file():
            raise UserError(f"{key}: no such file or folder: {path}")
        if not _is_known(path):
            raise UserError(f"{key}: {path} is none of {KINDS}, nor a folder of them")
    return found


def _kind(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix in PACKED else path.suffix


def _is_known(path: Path) -> bool:
    return _kind(path) in TEXTS or path.suffix == ".parquet"


def read_documents(
    path: Path, how: Reading, moved: Callable[[int], None] = lambda _: None
) -> Iterator[Record]:
    """Read the documents of one file.

    Raises:
        UserError: The file cannot be read at all.
    """
    try:
        yield from map(Distinct().take, _records(path, how, moved))
    except DamagedError as error:
        yield Lost(str(error), str(path))
    except OSError as error:
        raise UserError(f"--source: cannot read {path}: {error.strerror or error}") from error


def _records(path: Path, how: Reading, moved: Callable[[int], None]) -> Iterator[Record]:
    if path.suffix == ".parquet":
        yield from _parquet(path, how, moved)
    elif _kind(path) == ".jsonl":
        yield from _each_line(path, how, moved, _from_json)
    elif how.by_line:
        yield from _each_line(path, how, moved, _from_line)
    else:
        yield _whole(chunks(path, moved), how)


def _each_line(
    path: Path,
    how: Reading,
    moved: Callable[[int], None],
    parse: Callable[[bytes, Reading], Record],
) -> Iterator[Record]:
    for line in lines(chunks(path, moved), how.longest):
        yield (
            Lost("too long") if isinstance(line, TooLong) else parse(line.removesuffix(b"\r"), how)
        )


def _whole(pieces: Iterable[bytes], how: Reading) -> Record:
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > how.longest:
            return Lost("too long")
    return _from_line(bytes(content), how)


def _from_line(line: bytes, how: Reading) -> Record:
    try:
        return check((line.decode("utf-8"),), how)
    except UnicodeDecodeError:
        return Lost("not UTF-8")


def _from_json(line: bytes, how: Reading) -> Record:
    if not line.strip():
        return Lost("empty")
    try:
        return from_mapping(json.loads(line.decode("utf-8").removeprefix(BYTE_ORDER_MARK)), how)
    except UnicodeDecodeError:
        return Lost("not UTF-8")
    except (ValueError, RecursionError):
        return Lost("not JSON")


def _parquet(path: Path, how: Reading, moved: Callable[[int], None]) -> Iterator[Record]:
    size = path.stat().st_size
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            if missing := set(how.fields) - set(file.schema_arrow.names):
                yield Lost(f"no {' and no '.join(sorted(missing))}", str(path))
                return
            for group in range(file.num_row_groups):
                moved(size * group // file.num_row_groups)
                yield from _row_group(file, group, how)
    except (pa.ArrowException, OSError) as error:
        raise DamagedError("damaged") from error


def _row_group(file: Any, group: int, how: Reading) -> Iterator[Record]:
    told = file.metadata.row_group(group)
    if any(told.column(i).total_uncompressed_size > LARGEST_GROUP for i in _columns(told, how)):
        yield Lost("too long")
        return
    wanted = [*how.fields, *({"id"} & set(file.schema_arrow.names))]
    for batch in file.iter_batches(
        ROWS_AT_ONCE, row_groups=[group], columns=wanted, use_threads=False
    ):
        for row in range(batch.num_rows):
            try:
                values = {name: batch.column(name)[row].as_py() for name in wanted}
            except UnicodeDecodeError:
                yield Lost("not UTF-8")
                continue
            yield from_mapping(values, how)


def _columns(told: Any, how: Reading) -> list[int]:
    return [i for i in range(told.num_columns) if told.column(i).path_in_schema in how.fields]


def from_mapping(raw: object, how: Reading) -> Record:
    """Make a document of one record of a data set."""
    if not isinstance(raw, Mapping):
        return Lost("wrong type")
    if missing := [field for field in how.fields if raw.get(field) is None]:
        return Lost(f"no {' and no '.join(missing)}")
    texts = tuple(raw[field] for field in how.fields)
    if not all(isinstance(text, str) for text in texts):
        return Lost("wrong type")
    name = raw.get("id")
    return check(texts, how, str(name) if isinstance(name, str | int) else None)


def check(texts: tuple[str, ...], how: Reading, name: str | None = None) -> Record:
    """Hold a document's texts against what a tokenizer can be given."""
    clean = tuple(text.removeprefix(BYTE_ORDER_MARK) for text in texts)
    for text in clean:
        if fault := _fault(text, how.longest):
            return Lost(fault)
    return Found(clean, name, clean != texts)


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
