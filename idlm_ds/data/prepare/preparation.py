"""From documents to shards of rows."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from idlm_ds.data.index import (
    FILE,
    JOURNAL,
    SPLITS,
    TOKENIZER,
    TRAIN,
    Index,
    is_prepared,
    read_index,
)
from idlm_ds.data.prepare.documents import Found, Lost, Record
from idlm_ds.data.prepare.encoding import encode_all
from idlm_ds.data.prepare.journal import Journal, clear, find_journal
from idlm_ds.data.prepare.packing import Encoded, Packer
from idlm_ds.data.prepare.plan import Plan
from idlm_ds.data.prepare.shards import ShardWriter
from idlm_ds.errors import UserError

GROUP_DOCUMENTS, GROUP_CHARACTERS = 512, 1 << 18
"""Where a group of documents ends, whoever encodes it; a shard ends where a group does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """Who is told how it goes."""

    moved: Callable[[int], None] = lambda _: None
    """Of the position in the source."""

    packed: Callable[[int], None] = lambda _: None
    """Of tokens as they come."""


@dataclass(slots=True)
class Tally:
    """What became of the documents."""

    read: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    repaired: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    damaged: dict[str, str] = field(default_factory=dict)

    def note(self, split: str, record: Record) -> None:
        """Count one document."""
        self.read += 1
        if isinstance(record, Lost):
            self.dropped[record.reason] += 1
            if record.file is not None:
                self.damaged[record.file] = record.reason
        else:
            self.kept[split] += 1
            self.repaired += record.is_repaired

    def about(self, journal: Journal) -> dict[str, Any]:
        """What the index says of it; kept and dropped add up to read."""
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
class Group:
    """Documents that are encoded together."""

    texts: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    characters: int = 0
    stop: int = 0
    """The document after its last one."""

    @property
    def is_full(self) -> bool:
        """Whether the next document begins another one."""
        return len(self.splits) >= GROUP_DOCUMENTS or self.characters >= GROUP_CHARACTERS

    def add(self, split: str, texts: tuple[str, ...], stop: int) -> None:
        """Add a document."""
        self.texts += texts
        self.splits.append(split)
        self.characters += sum(map(len, texts))
        self.stop = stop


def prepare(plan: Plan, folder: Path, watch: Watch, *, fresh: bool = False) -> Index:
    """Write prepared data, going on where an interrupted preparation stopped.

    Args:
        plan: What is asked for.
        folder: Where it goes.
        watch: Who is told how it goes.
        fresh: Whether to delete what an earlier preparation left there.

    Raises:
        UserError: The folder holds something else, a source cannot be read, or nothing came of it.
    """
    if fresh and is_prepared(folder):
        clear(folder)
    _check_folder(folder)
    if (folder / FILE).is_file() and not (folder / JOURNAL).is_file():
        return _finished(plan, folder)
    folder.mkdir(parents=True, exist_ok=True)
    journal, tally = find_journal(folder, plan.settings), Tally()
    writer = ShardWriter(folder, journal, dtype=plan.dtype, shard_bytes=plan.shard_bytes)
    packers = {name: plan.packer(journal.carry[name]) for name in SPLITS}
    for group, encoded in _encoded(plan, journal.next, tally, watch):
        _pack(group, encoded, packers, writer)
        watch.packed(len(encoded.tokens))
        if writer.is_full:
            writer.commit(group.stop, packers)
    writer.commit(tally.read, packers)
    return _finish(plan, folder, journal, tally, writer)


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output: {folder} is no folder")
    if folder.is_dir() and any(folder.iterdir()) and not is_prepared(folder):
        raise UserError(f"--output: {folder} holds other files; name a new or empty folder")


def _finished(plan: Plan, folder: Path) -> Index:
    """What is there, if it is what was asked for."""
    index = read_index(folder, "--output")
    if index.words.sha256 != plan.tokenizer.fingerprint:
        raise UserError(
            f"--output: {folder} was prepared by tokenizer {index.words.sha256[:12]}, --tokenizer "
            f"is {plan.tokenizer.fingerprint[:12]}; start over with --fresh"
        )
    asked = asdict(_index(plan, splits=index.splits, counts=index.counts))
    for key, value in asdict(index).items():
        if key not in ("documents", "damaged") and asked[key] != value:
            raise UserError(
                f"--output: {folder} was prepared with another {key}; start over with --fresh"
            )
    return index


def _encoded(plan: Plan, start: int, tally: Tally, watch: Watch) -> Iterator[tuple[Group, Encoded]]:
    ahead: deque[Group] = deque()

    def texts() -> Iterator[list[str]]:
        for group in _groups(plan, start, tally, watch):
            ahead.append(group)
            yield group.texts

    for encoded in encode_all(plan.encoder, texts(), workers=plan.workers):
        yield ahead.popleft(), encoded


def _groups(plan: Plan, start: int, tally: Tally, watch: Watch) -> Iterator[Group]:
    """Documents from ``start`` on; those before it are counted only."""
    group = Group()
    for ordinal, (split, record) in enumerate(plan.corpus.read(watch.moved)):
        tally.note(split, record)
        if isinstance(record, Lost) or ordinal < start:
            continue
        group.add(split, _texts(plan, record), ordinal + 1)
        if group.is_full:
            yield group
            group = Group()
    if group.splits:
        yield group


def _texts(plan: Plan, record: Found) -> tuple[str, ...]:
    if plan.separator is None:
        return record.texts
    prompt, answer = record.texts
    return prompt + plan.separator, answer


def _pack(group: Group, encoded: Encoded, packers: dict[str, Packer], writer: ShardWriter) -> None:
    texts_each = len(group.texts) // len(group.splits)
    owners = np.repeat(np.array(group.splits), texts_each)
    for split in SPLITS:
        mine = owners == split
        if mine.any():
            writer.add(split, packers[split].add(encoded.pick(mine)))


def _finish(plan: Plan, folder: Path, journal: Journal, tally: Tally, writer: ShardWriter) -> Index:
    documents = tally.about(journal)
    if not journal.shards[TRAIN]:
        lost = ", ".join(f"{count} {reason}" for reason, count in documents["dropped"].items())
        raise UserError(
            f"--source: not one row of {plan.length} tokens came of {documents['read']} documents "
            f"({documents['train']} kept for training; dropped: {lost or 'none'})"
        )
    splits = {name: tuple(journal.shards[name]) for name in SPLITS}
    index = _index(
        plan,
        splits=splits,
        counts=writer.count(plan.tokenizer.num_ids),
        documents=documents,
        damaged=tally.damaged,
    )
    plan.tokenizer.save(folder / TOKENIZER)
    index.write(folder)
    (folder / JOURNAL).unlink()
    return index


def _index(plan: Plan, **found: Any) -> Index:
    return Index(
        length=plan.length,
        pack=plan.pack,
        framed=plan.framed,
        ends=plan.ends,
        dtype=plan.dtype,
        words=plan.words,
        source=plan.about,
        **{"documents": {}, **found},
    )
