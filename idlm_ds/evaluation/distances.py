"""How far sets of samples lie from real text: MAUVE, and the distance of gradients."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from typing import Any, TypeAlias

from tqdm import tqdm

from idlm_ds.build.tokenizers import load_tokenizer
from idlm_ds.data.windows import in_order, pack
from idlm_ds.engine.dist import World
from idlm_ds.evaluation.cell import Cell
from idlm_ds.evaluation.options import Judging, Metric
from idlm_ds.evaluation.sources import read_documents
from idlm_ds.evaluation.store import Store, read_json, write_json
from idlm_ds.metrics.features import last_token_features
from idlm_ds.metrics.gradient_distance import gradient_distance
from idlm_ds.metrics.judge import Judge
from idlm_ds.metrics.mauve import mauve_score

Size: TypeAlias = tuple[int, int]
"""Length and number of the samples of a set."""

Passages: TypeAlias = Mapping[Size, list[str]]


def reference_passages(
    cells: Sequence[Cell], judging: Judging, tokenizer_spec: str | None
) -> Passages:
    """Cut real text into as many passages of as many tokens as each cell has.

    Raises:
        UserError: The reference cannot be read or is too short.
    """
    tokenizer = load_tokenizer(tokenizer_spec or "assets:tokenizer", "--tokenizer")
    documents = read_documents(judging.reference, "--reference", judging.heldout_every)
    stream = pack(documents, tokenizer)
    sizes = {(cell.length, cell.num_samples) for cell in cells}
    return {size: tokenizer.decode(in_order(stream, *size).tolist()) for size in sizes}


def distances_of(
    judge: Judge,
    cells: Sequence[Cell],
    store: Store,
    metrics: Sequence[Metric],
    passages: Passages,
    *,
    batch: int,
    world: World,
) -> dict[Cell, dict[str, Any]]:
    """Compare each cell with as much real text.

    Collective: every rank must call; each takes every ``world.size``-th cell.

    Returns:
        For each cell the result of each metric, under the metric's name.

    Raises:
        UserError: A package is missing.
    """
    results: dict[Cell, dict[str, Any]] = {cell: {} for cell in cells}
    measures = _measures(judge, passages, batch)
    for metric in metrics:
        for i, cell in enumerate(tqdm(cells, unit="set", desc=metric, disable=not world.is_first)):
            if i % world.size != world.rank:
                continue
            size = cell.length, cell.num_samples
            file = store.score(cell, f"{judge.name}.{metric}-{_hash(passages[size])}")
            if not file.exists():
                write_json(file, measures[metric](size, store.read_samples(cell).texts))
            results[cell][metric] = read_json(file)
    if metrics:
        for share in world.gather(results):
            for cell, of_cell in share.items():
                results[cell] |= of_cell
    return results


def _measures(
    judge: Judge, passages: Passages, batch: int
) -> dict[Metric, Callable[[Size, Sequence[str]], dict[str, object]]]:
    """Ways to hold texts against as much real text, which MAUVE reads once for each size."""
    features = partial(last_token_features, judge, batch=batch)
    real_features = cache(lambda size: features(passages[size]))
    # What follows a BOS can have gradients a thousand times as long as the rest.
    bare = Judge(judge.model, judge.tokenizer, name=judge.name, context=judge.context)
    return {
        "mauve": lambda size, texts: asdict(mauve_score(real_features(size), features(texts))),
        "gm": lambda size, texts: gradient_distance(bare, passages[size], texts).to_json(),
    }


def _hash(texts: Sequence[str]) -> str:
    return hashlib.blake2b(json.dumps(list(texts)).encode(), digest_size=6).hexdigest()
