"""What is in a folder of prepared data, and whether it still is."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from idlm_ds.errors import UserError
from idlm_ds.files import write_atomic

FILE = "index.json"
JOURNAL = "unfinished.json"
COUNTS = "token-counts.bin"
TOKENIZER = "tokenizer"
FORMAT = 1
TRAIN, HELDOUT = "train", "heldout"
SPLITS = (TRAIN, HELDOUT)

_NAME = re.compile(r"(?:train|heldout)-\d{5,}\.(?:bin|spans)|token-counts\.bin")


@dataclass(frozen=True, slots=True)
class Part:
    """One file of numbers."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows that are kept in one file."""

    rows: int
    tokens: Part
    spans: Part | None = None
    """Where a row's text lies, if that is not the whole row."""

    @property
    def parts(self) -> list[Part]:
        """Its files."""
        return [self.tokens] if self.spans is None else [self.tokens, self.spans]


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """Which tokenizer made the tokens."""

    sha256: str
    size: int
    bos: int
    eos: int
    pad: int
    mask: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """Everything there is to know about prepared data without reading it."""

    length: int
    pack: str
    """``wrap`` or ``pad``."""

    framed: bool
    ends: bool
    dtype: str
    words: Words
    source: Mapping[str, Any]
    """What was read, and how."""

    documents: Mapping[str, Any]
    """How many were read, kept, repaired, cut, and dropped for which reason."""

    damaged: Mapping[str, str] = field(default_factory=dict)
    """Files of which a part could not be read, and why."""

    splits: Mapping[str, tuple[Shard, ...]]
    counts: Part
    """How often each token occurs."""

    @property
    def parts(self) -> list[Part]:
        """All files."""
        shards = (shard for name in SPLITS for shard in self.splits[name])
        return [part for shard in shards for part in shard.parts] + [self.counts]

    @property
    def fingerprint(self) -> str:
        """Short hash of the training tokens."""
        hashes = [part.sha256 for shard in self.splits[TRAIN] for part in shard.parts]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]

    @property
    def has_spans(self) -> bool:
        """Whether the loss is about a part of each row only."""
        return any(shard.spans is not None for name in SPLITS for shard in self.splits[name])

    def rows(self, split: str) -> int:
        """Rows of a split."""
        return sum(shard.rows for shard in self.splits[split])

    def write(self, folder: Path) -> None:
        """Write it into the folder it is about."""
        content = {"format": FORMAT, **asdict(self)}
        text = json.dumps({**content, "sha256": _digest(content)}, indent=1, ensure_ascii=False)
        write_atomic(folder / FILE, text.encode())


def is_prepared(folder: Path) -> bool:
    """Whether a folder is prepared data, finished or not."""
    return (folder / FILE).is_file() or (folder / JOURNAL).is_file()


def read_index(folder: Path, key: str) -> Index:
    """Read the index of a folder; the data itself is not looked at.

    Args:
        folder: The folder.
        key: What names it, for messages.

    Raises:
        UserError: Preparation did not finish, or the index is damaged or of another format.
    """
    path = folder / FILE
    if (folder / JOURNAL).is_file():
        raise UserError(f"{key}: {folder} is unfinished; run tools/prepare_data.py on it again")
    try:
        raw = json.loads(path.read_text("utf-8"))
        digest, version = raw.pop("sha256"), raw.get("format")
        is_whole = digest == _digest(raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{key}: {path} is no index of prepared data") from error
    if version != FORMAT:
        raise UserError(f"{key}: {path} has format {version!r}; this version reads {FORMAT}")
    if not is_whole:
        raise UserError(f"{key}: {path} was altered after preparation; prepare the data again")
    try:
        index = index_from(raw)
        fault = _fault(index)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{key}: {path} is no index of prepared data") from error
    if fault is not None:
        raise UserError(f"{key}: {path} {fault}")
    return index


def _fault(index: Index) -> str | None:
    """What an index that somebody wrote by hand can have wrong."""
    if bad := [part.file for part in index.parts if not _NAME.fullmatch(part.file)]:
        return f"names {bad[0]!r}, which is no shard's name"
    width = {"<u2": 2, "<u4": 4}.get(index.dtype, 0) * index.length
    for shard in (shard for name in SPLITS for shard in index.splits[name]):
        sizes = [part.bytes for part in shard.parts]
        if shard.rows < 1 or sizes != [shard.rows * width, shard.rows * 8][: len(sizes)]:
            return f"says of {shard.tokens.file} what cannot be: {shard.rows} rows, {sizes} bytes"
    return None


def index_from(raw: Mapping[str, Any]) -> Index:
    """An index of what one was written as."""
    fields = {name: value for name, value in raw.items() if name != "format"}
    fields["splits"] = {name: shards_from(raw["splits"][name]) for name in SPLITS}
    fields["words"], fields["counts"] = Words(**raw["words"]), Part(**raw["counts"])
    return Index(**fields)


def shards_from(raw: Iterable[Mapping[str, Any]]) -> tuple[Shard, ...]:
    """Shards of what they were written as."""
    return tuple(
        Shard(s["rows"], Part(**s["tokens"]), s["spans"] and Part(**s["spans"])) for s in raw
    )


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_sizes(index: Index, folder: Path, key: str) -> None:
    """See that every file is there and has its size.

    Raises:
        UserError: One is not.
    """
    for part in index.parts:
        path = folder / part.file
        found = path.stat().st_size if path.is_file() else None
        if found is None:
            raise UserError(f"{key}: {path} is missing; prepare the data again")
        if found != part.bytes:
            raise UserError(
                f"{key}: {path} was altered after preparation: {found} bytes, {part.bytes} in the "
                "index; prepare the data again"
            )


def check_hashes(
    index: Index, folder: Path, key: str, told: Callable[[int], None] = lambda _: None
) -> None:
    """Read every file and hold it against its SHA-256.

    Args:
        index: The index.
        folder: Its folder.
        key: What names it, for messages.
        told: Told the bytes of each file when it has been read.

    Raises:
        UserError: One was altered, or is missing.
    """
    check_sizes(index, folder, key)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        hashes = pool.map(lambda part: hash_file(folder / part.file), index.parts)
        for part, found in zip(index.parts, hashes, strict=True):
            if found != part.sha256:
                raise UserError(
                    f"{key}: {folder / part.file} was altered after preparation: SHA-256 "
                    f"{found[:12]}, {part.sha256[:12]} in the index; prepare the data again"
                )
            told(part.bytes)


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
