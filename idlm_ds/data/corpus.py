"""Read documents from files, and split off held-out ones."""

import json
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from idlm_ds.errors import UserError


@dataclass(frozen=True, slots=True)
class Document:
    """One text with a name that is the same in every run."""

    name: str
    text: str


def read_corpus(path: Path) -> list[Document]:
    """Read the documents of a small corpus in a fixed order.

    Args:
        path: A ``.jsonl`` or ``.jsonl.xz`` file with ``id`` and ``text`` in each line, a ``.txt``
            file (one document), or a folder of ``.txt`` files (one document each, by name).

    Raises:
        UserError: The path is none of these, is not readable text, or holds no documents.
    """
    try:
        documents = list(_documents(path))
    except (OSError, UnicodeDecodeError, lzma.LZMAError) as error:
        raise UserError(f"data.corpus: cannot read {path}: {error}") from error
    if not documents:
        raise UserError(f"data.corpus: {path} holds no document")
    return documents


def _documents(path: Path) -> Iterator[Document]:
    if path.is_dir():
        for file in sorted(path.glob("*.txt")):
            yield Document(file.stem, file.read_text("utf-8"))
    elif path.name.endswith((".jsonl", ".jsonl.xz")):
        raw = path.read_bytes()
        text = (lzma.decompress(raw) if path.suffix == ".xz" else raw).decode("utf-8")
        # Not splitlines(), which also cuts at separators that JSON strings may hold.
        lines = text.removesuffix("\n").split("\n") if text else []
        for number, line in enumerate(lines, start=1):
            yield _from_json(line, where=f"{path}, line {number}")
    elif path.suffix == ".txt":
        yield Document(path.stem, path.read_text("utf-8"))
    else:
        raise UserError(
            f"data.corpus: {path} is none of: .jsonl, .jsonl.xz, .txt, a folder of .txt files"
        )


def _from_json(line: str, *, where: str) -> Document:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"data.corpus: {where}: not JSON: {error.msg}") from error
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise UserError(f"data.corpus: {where}: expected an object with a string 'text'")
    return Document(str(record.get("id", where)), record["text"])


def split_documents(
    documents: Sequence[Document], *, heldout_every: int
) -> tuple[list[Document], list[Document]]:
    """Hold out every ``heldout_every``-th document, so that all periods are represented.

    Returns:
        Training documents and held-out documents. A corpus of fewer than ``heldout_every``
        documents holds out its last one.

    Raises:
        UserError: There is only one document.
    """
    if len(documents) < 2:
        raise UserError("data.corpus: at least two documents are needed to hold one out")
    stride = min(heldout_every, len(documents))
    train = [d for i, d in enumerate(documents) if i % stride != stride - 1]
    heldout = [d for i, d in enumerate(documents) if i % stride == stride - 1]
    return train, heldout
