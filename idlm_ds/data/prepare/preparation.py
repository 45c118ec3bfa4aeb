"""Prepare a corpus: read, encode, pack and write its documents, resuming where it stopped."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from idlm_ds.data.index import (
    INDEX_FILE,
    JOURNAL_FILE,
    SPLITS,
    TOKENIZER_FOLDER,
    TRAIN,
    Index,
    is_prepared,
    read_index,
)
from idlm_ds.data.prepare.documents import DroppedDocument, KeptDocument, Record
from idlm_ds.data.prepare.encoding import encode_all
from idlm_ds.data.prepare.packing import EncodedTexts, Packer
from idlm_ds.data.prepare.plan import PreparationPlan
from idlm_ds.data.prepare.shards import Journal, ShardWriter, delete_prepared, open_journal
from idlm_ds.data.prepare.sources import OnPosition
from idlm_ds.errors import UserError

GROUP_DOCUMENTS, GROUP_CHARACTERS = 512, 1 << 18
"""Limits of a group of documents, the same for any number of workers; shards end with groups."""


@dataclass(slots=True)
class DocumentCounts:
    """Numbers of documents that were read, kept, repaired and dropped."""

    read: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    repaired: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    damaged: dict[str, str] = field(default_factory=dict)

    def add(self, split: str, record: Record) -> None:
        """Count one document."""
        self.read += 1
        if isinstance(record, DroppedDocument):
            self.dropped[record.reason] += 1
            if record.file is not None:
                self.damaged[record.file] = record.reason
        else:
            self.kept[split] += 1
            self.repaired += record.is_repaired

    def summary(self, journal: Journal) -> dict[str, Any]:
        """Return the entry of the index, in which kept and dropped add up to read."""
        unanswered = journal.unanswered
        kept = {name: self.kept[name] - unanswered[name] for name in SPLITS}
        dropped = self.dropped + Counter({"no room for an answer": sum(unanswered.values())})
        return {
            "read": self.read,
            "kept": sum(kept.values()),
            **kept,
            "repaired": self.repaired,
            "truncated": journal.truncated,
            "dropped": dict(sorted(dropped.items())),
        }


@dataclass(slots=True)
class DocumentGroup:
    """Documents that are encoded together, in one task of a worker."""

    texts: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    characters: int = 0
    stop: int = 0
    """Number of the document after its last one."""

    @property
    def is_full(self) -> bool:
        """Whether the next document starts another group."""
        return len(self.splits) >= GROUP_DOCUMENTS or self.characters >= GROUP_CHARACTERS

    def add(self, split: str, texts: tuple[str, ...], stop: int) -> None:
        """Add a document."""
        self.texts += texts
        self.splits.append(split)
        self.characters += sum(map(len, texts))
        self.stop = stop


def prepare(
    plan: PreparationPlan,
    folder: Path,
    *,
    fresh: bool = False,
    on_position: OnPosition = lambda _: None,
    on_tokens: Callable[[int], None] = lambda _: None,
) -> Index:
    """Write prepared data, resuming an interrupted preparation.

    Args:
        plan: Settings of the preparation.
        folder: Output folder.
        fresh: Whether to delete the output of an earlier preparation first.
        on_position: Called with the position in the source.
        on_tokens: Called with the number of tokens of each group.

    Raises:
        UserError: The folder holds other files, a source cannot be read, or no row came out.
    """
    # A finished folder is only compared with the plan.
    if fresh and is_prepared(folder):
        delete_prepared(folder)
    _check_folder(folder)
    if (folder / INDEX_FILE).is_file() and not (folder / JOURNAL_FILE).is_file():
        return _check_finished(plan, folder)

    # Restore the state after the last finished shard, or start at the first document.
    folder.mkdir(parents=True, exist_ok=True)
    journal, counts = open_journal(folder, plan.settings), DocumentCounts()
    writer = ShardWriter(folder, journal, dtype=plan.dtype, shard_bytes=plan.shard_bytes)
    packers = {name: plan.packer(journal.carry[name]) for name in SPLITS}

    # Encode and pack group by group; a shard is committed at the end of a group.
    for group, encoded in _encode_groups(plan, journal.next, counts, on_position):
        _pack(group, encoded, packers, writer)
        on_tokens(len(encoded.tokens))
        if writer.is_full:
            writer.commit(group.stop, packers)
    writer.commit(counts.read, packers)
    return _finish(plan, folder, journal, counts, writer)


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output: {folder} is no folder")
    if folder.is_dir() and any(folder.iterdir()) and not is_prepared(folder):
        raise UserError(f"--output: {folder} holds other files; name a new or empty folder")


def _check_finished(plan: PreparationPlan, folder: Path) -> Index:
    """Return the index of finished data, after checking that it was made by an equal plan."""
    index = read_index(folder, "--output")
    if index.tokenizer.sha256 != plan.tokenizer.fingerprint:
        raise UserError(
            f"--output: {folder} was prepared by tokenizer {index.tokenizer.sha256[:12]}, "
            f"--tokenizer is {plan.tokenizer.fingerprint[:12]}; start over with --fresh"
        )
    expected = asdict(plan.index(splits=index.splits, counts=index.counts))
    for key, value in asdict(index).items():
        if key not in ("documents", "damaged") and expected[key] != value:
            raise UserError(
                f"--output: {folder} was prepared with another {key}; start over with --fresh"
            )
    return index


def _encode_groups(
    plan: PreparationPlan, start: int, counts: DocumentCounts, on_position: OnPosition
) -> Iterator[tuple[DocumentGroup, EncodedTexts]]:
    # Groups whose texts were handed to the encoder and have not come back; order is kept.
    in_flight: deque[DocumentGroup] = deque()

    def texts() -> Iterator[list[str]]:
        for group in _groups(plan, start, counts, on_position):
            in_flight.append(group)
            yield group.texts

    for encoded in encode_all(plan.encoder, texts(), workers=plan.workers):
        yield in_flight.popleft(), encoded


def _groups(
    plan: PreparationPlan, start: int, counts: DocumentCounts, on_position: OnPosition
) -> Iterator[DocumentGroup]:
    """Group the documents from ``start`` on; earlier ones are read again, but only counted."""
    group = DocumentGroup()
    # A document belongs to a group by its place in the corpus, so groups do not depend on workers.
    for ordinal, (split, record) in enumerate(plan.corpus.read(on_position)):
        counts.add(split, record)
        if isinstance(record, DroppedDocument) or ordinal < start:
            continue
        group.add(split, _texts(plan, record), ordinal + 1)
        if group.is_full:
            yield group
            group = DocumentGroup()
    if group.splits:
        yield group


def _texts(plan: PreparationPlan, record: KeptDocument) -> tuple[str, ...]:
    if plan.separator is None:
        return record.texts
    prompt, answer = record.texts
    return prompt + plan.separator, answer


def _pack(
    group: DocumentGroup, encoded: EncodedTexts, packers: dict[str, Packer], writer: ShardWriter
) -> None:
    # A document has one text, or two if it is a prompt and an answer.
    texts_per_document = len(group.texts) // len(group.splits)
    split_of_text = np.repeat(np.array(group.splits), texts_per_document)
    for split in SPLITS:
        is_in_split = split_of_text == split
        if is_in_split.any():
            writer.add(split, packers[split].add(encoded.select(is_in_split)))


def _finish(
    plan: PreparationPlan,
    folder: Path,
    journal: Journal,
    counts: DocumentCounts,
    writer: ShardWriter,
) -> Index:
    documents = counts.summary(journal)
    if not journal.shards[TRAIN]:
        dropped = ", ".join(f"{count} {reason}" for reason, count in documents["dropped"].items())
        raise UserError(
            f"--source: not one row of {plan.length} tokens came of {documents['read']} documents "
            f"({documents['train']} kept for training; dropped: {dropped or 'none'})"
        )
    index = plan.index(
        splits={name: tuple(journal.shards[name]) for name in SPLITS},
        counts=writer.count_tokens(plan.tokenizer.num_ids),
        documents=documents,
        damaged=counts.damaged,
    )
    # The journal goes last: while it exists, the folder counts as unfinished.
    plan.tokenizer.save(folder / TOKENIZER_FOLDER)
    index.write(folder)
    (folder / JOURNAL_FILE).unlink()
    return index
