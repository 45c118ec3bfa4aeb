"""How far sets of samples lie from real text: MAUVE, and the distance of gradients."""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tqdm import tqdm

from idlm_ds.build.locate import locate
from idlm_ds.build.tokenizers import load_tokenizer
from idlm_ds.data.corpus import read_corpus, split_documents
from idlm_ds.data.windows import in_order, pack
from idlm_ds.engine.dist import World
from idlm_ds.evaluation.grid import GenPplOptions
from idlm_ds.evaluation.store import Cell, Store, read_json, write_json
from idlm_ds.metrics.features import Features, last_token_features
from idlm_ds.metrics.gradient_distance import gradient_distance
from idlm_ds.metrics.judge import Judge
from idlm_ds.metrics.mauve import mauve_score


def distances_of(
    judge: Judge, cells: Sequence[Cell], store: Store, options: GenPplOptions, world: World
) -> dict[Cell, dict[str, Any]]:
    """Each cell against as much real text, by the metrics that were asked for.

    Collective: every rank must call; each takes every so many cells.

    Returns:
        For each cell what each metric gave, under the metric's name.

    Raises:
        UserError: The reference cannot be read or is too short, or a package is missing.
    """
    found: dict[str, dict[str, Any]] = {cell.key: {} for cell in cells}
    if not options.metrics:
        return {cell: found[cell.key] for cell in cells}
    real = _references(cells, options)
    measures: dict[str, Callable[[list[str], Sequence[str]], dict[str, object]]] = {
        "mauve": _Mauve(judge, options.batch),
        "gm": partial(_gradients, judge),
    }
    for metric in options.metrics:
        for i, cell in enumerate(tqdm(cells, unit="set", desc=metric, disable=not world.is_first)):
            if i % world.size != world.rank:
                continue
            passages = real[cell.length, cell.num_samples]
            file = store.score(cell, f"{judge.name}.{metric}-{_hash(passages)}")
            if not file.exists():
                write_json(file, measures[metric](passages, store.read_samples(cell).texts))
            found[cell.key][metric] = read_json(file)
    for share in world.gather(found):
        for key, told in share.items():
            found[key] |= told
    return {cell: found[cell.key] for cell in cells}


class _Mauve:
    """Reads real text once for all sets of one size."""

    def __init__(self, judge: Judge, batch: int) -> None:
        self._judge = judge
        self._batch = batch
        self._real: dict[str, Features] = {}

    def __call__(self, real: list[str], texts: Sequence[str]) -> dict[str, object]:
        key = _hash(real)
        if key not in self._real:
            self._real[key] = last_token_features(self._judge, real, batch=self._batch)
        samples = last_token_features(self._judge, texts, batch=self._batch)
        return mauve_score(self._real[key], samples).to_json()


def _gradients(judge: Judge, real: Sequence[str], texts: Sequence[str]) -> dict[str, object]:
    # What follows a BOS can have gradients a thousand times as long as the rest.
    bare = Judge(judge.model, judge.tokenizer, name=judge.name, context=judge.context)
    return gradient_distance(bare, real, texts).to_json()


def _references(cells: Sequence[Cell], options: GenPplOptions) -> dict[tuple[int, int], list[str]]:
    """As many real passages as there are samples, of as many tokens, for every such pair."""
    tokenizer = load_tokenizer(options.tokenizer or "assets:tokenizer", "--tokenizer")
    documents = read_corpus(locate(options.reference, "--reference"))
    if options.heldout_every is not None:
        _, documents = split_documents(documents, heldout_every=options.heldout_every)
    stream = pack(documents, tokenizer)
    sizes = {(cell.length, cell.num_samples) for cell in cells}
    return {size: tokenizer.decode(in_order(stream, *size).tolist()) for size in sizes}


def _hash(texts: Sequence[str]) -> str:
    return hashlib.blake2b(json.dumps(list(texts)).encode(), digest_size=6).hexdigest()
