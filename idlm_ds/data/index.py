"""Index of a folder of prepared data, and the checks of its files."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from idlm_ds.errors import UserError
from idlm_ds.files import write_atomic

INDEX_FILE = "index.json"
JOURNAL_FILE = "unfinished.json"
COUNTS_FILE = "token-counts.bin"
TOKENIZER_FOLDER = "tokenizer"
FORMAT = 1
TRAIN, HELDOUT = "train", "heldout"
SPLITS = (TRAIN, HELDOUT)

_FILE_KEYS = {"tokenizer": "words"}
"""Fields that have another name in the file."""

_NAME = re.compile(r"(?:train|heldout)-\d{5,}\.(?:bin|spans)|token-counts\.bin")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Name, size and hash of one file of numbers."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows in one file, with the spans of their loss in another if it covers only a part."""

    rows: int
    tokens: FileRecord
    spans: FileRecord | None = None
    """First position of the loss and end of the text of each row; None for whole rows."""

    @property
    def files(self) -> list[FileRecord]:
        """Files of the shard."""
        return [self.tokens] if self.spans is None else [self.tokens, self.spans]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerRecord:
    """Hash, size and special tokens of the tokenizer that produced the tokens."""

    sha256: str
    size: int
    bos: int
    eos: int
    pad: int
    mask: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """Description of prepared data, sufficient to open it without reading it."""

    length: int
    """Tokens per row."""

    pack: str
    """``wrap`` or ``pad``."""

    framed: bool
    """Whether special tokens surround each row."""

    ends: bool
    """Whether each document ends with an end-of-text token."""

    dtype: str
    tokenizer: TokenizerRecord
    source: Mapping[str, Any]
    """Sources and options for reading them."""

    documents: Mapping[str, Any]
    """Numbers of documents read, kept, repaired, cut, and dropped by reason."""

    damaged: Mapping[str, str] = field(default_factory=dict)
    """Reason for each file of which a part could not be read."""

    splits: Mapping[str, tuple[Shard, ...]]
    counts: FileRecord
    """Number of occurrences of each token."""

    @property
    def files(self) -> list[FileRecord]:
        """All files."""
        shards = (shard for name in SPLITS for shard in self.splits[name])
        return [record for shard in shards for record in shard.files] + [self.counts]

    @property
    def fingerprint(self) -> str:
        """Short hash of the training tokens."""
        hashes = [record.sha256 for shard in self.splits[TRAIN] for record in shard.files]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]

    @property
    def has_spans(self) -> bool:
        """Whether the loss covers only a part of each row."""
        return any(shard.spans is not None for name in SPLITS for shard in self.splits[name])

    def rows(self, split: str) -> int:
        """Return the number of rows of a split."""
        return sum(shard.rows for shard in self.splits[split])

    def write(self, folder: Path) -> None:
        """Write the index into its folder, with a hash of itself."""
        fields = {_FILE_KEYS.get(name, name): value for name, value in asdict(self).items()}
        content = {"format": FORMAT, **fields}
        text = json.dumps({**content, "sha256": _digest(content)}, indent=1, ensure_ascii=False)
        write_atomic(folder / INDEX_FILE, text.encode())


def is_prepared(folder: Path) -> bool:
    """Tell whether a folder is prepared data, finished or not."""
    return (folder / INDEX_FILE).is_file() or (folder / JOURNAL_FILE).is_file()


def read_index(folder: Path, key: str) -> Index:
    """Read the index of a folder, which messages name by ``key``; the data itself is not read.

    Raises:
        UserError: Preparation did not finish, or the index is damaged or of another format.
    """
    path = folder / INDEX_FILE
    if (folder / JOURNAL_FILE).is_file():
        raise UserError(f"{key}: {folder} is unfinished; run tools/prepare_data.py on it again")
    # Compare the hash before the content is interpreted.
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
    # An index written by hand may have a valid hash and still contradict itself.
    try:
        index = _index_from(raw)
        fault = _fault(index)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{key}: {path} is no index of prepared data") from error
    if fault is not None:
        raise UserError(f"{key}: {path} {fault}")
    return index


def _fault(index: Index) -> str | None:
    if bad := [record.file for record in index.files if not _NAME.fullmatch(record.file)]:
        return f"names {bad[0]!r}, which is no shard's name"
    width = {"<u2": 2, "<u4": 4}.get(index.dtype, 0) * index.length
    for shard in (shard for name in SPLITS for shard in index.splits[name]):
        sizes = [record.bytes for record in shard.files]
        if shard.rows < 1 or sizes != [shard.rows * width, shard.rows * 8][: len(sizes)]:
            return f"says of {shard.tokens.file} what cannot be: {shard.rows} rows, {sizes} bytes"
    return None


def _index_from(raw: Mapping[str, Any]) -> Index:
    fields = {name: value for name, value in raw.items() if name not in ("format", "words")}
    fields["tokenizer"] = TokenizerRecord(**raw["words"])
    fields["splits"] = {name: shards_from(raw["splits"][name]) for name in SPLITS}
    fields["counts"] = FileRecord(**raw["counts"])
    return Index(**fields)


def shards_from(raw: Iterable[Mapping[str, Any]]) -> tuple[Shard, ...]:
    """Build shards from their JSON values."""
    return tuple(
        Shard(s["rows"], FileRecord(**s["tokens"]), s["spans"] and FileRecord(**s["spans"]))
        for s in raw
    )


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_sizes(index: Index, folder: Path, key: str) -> None:
    """Check that every file exists and has the size in the index.

    Raises:
        UserError: A file is missing or has another size.
    """
    for record in index.files:
        path = folder / record.file
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise UserError(f"{key}: {path} is missing; prepare the data again")
        if size != record.bytes:
            raise UserError(
                f"{key}: {path} was altered after preparation: {size} bytes, {record.bytes} in the "
                "index; prepare the data again"
            )


def check_hashes(
    index: Index,
    folder: Path,
    key: str,
    on_bytes: Callable[[int], None] = lambda _: None,
    *,
    only: Collection[str] | None = None,
) -> None:
    """Read files, compare their SHA-256 with the index, and call ``on_bytes`` with their sizes.

    ``only`` names the files to read; None for all.

    Raises:
        UserError: A file was altered or is missing.
    """
    check_sizes(index, folder, key)
    records = [record for record in index.files if only is None or record.file in only]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        hashes = pool.map(lambda record: hash_file(folder / record.file), records)
        for record, sha256 in zip(records, hashes, strict=True):
            if sha256 != record.sha256:
                raise UserError(
                    f"{key}: {folder / record.file} was altered after preparation: SHA-256 "
                    f"{sha256[:12]}, {record.sha256[:12]} in the index; prepare the data again"
                )
            on_bytes(record.bytes)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
