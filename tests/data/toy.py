"""Corpora and tokenizers small enough to prepare hundreds of them in a test."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from idlm_ds.data.index import Index
from idlm_ds.data.prepare.documents import KeptDocument, Record
from idlm_ds.data.prepare.plan import PreparationPlan
from idlm_ds.data.prepare.preparation import prepare
from idlm_ds.data.prepare.sources import Corpus, OnPosition, SplitRule
from tests.data.letters import LetterTokenizer


def cases(count: int) -> settings:
    """So many cases of a property, the same ones each time."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@dataclass
class Listed:
    """Documents out of a list; reading them can be made to fail."""

    records: Sequence[Record]
    fails_at: int | None = None
    size: int | None = None
    state: str = "listed"
    description: dict[str, Any] = field(default_factory=lambda: {"files": []})

    def read(self, on_position: OnPosition) -> Iterator[Record]:
        for at, record in enumerate(self.records):
            if at == self.fails_at:
                raise KeyboardInterrupt
            on_position(at)
            yield record


def plan(texts: Sequence[str], *, fails_at: int | None = None, **options: Any) -> PreparationPlan:
    """A plan for texts that are documents, every third one held out."""
    source = Listed([KeptDocument((text,)) for text in texts], fails_at)
    defaults = {"length": 6, "tokenizer": LetterTokenizer(), "shard_bytes": 64}
    return PreparationPlan(
        corpus=Corpus([(source, SplitRule("every", 3))]), **{**defaults, **options}
    )


def make(folder: Path, texts: Sequence[str], **options: Any) -> Index:
    """Prepare texts."""
    return prepare(plan(texts, **options), folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def jsonl(path: Path, records: Sequence[object]) -> Path:
    """Write one record a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path
