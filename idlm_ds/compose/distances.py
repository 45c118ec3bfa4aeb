"""How far sets of samples lie from real text: MAUVE, and the distance of gradients."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from idlm_ds.compose.cells import GenPplOptions
from idlm_ds.compose.parts import load_tokenizer
from idlm_ds.compose.places import locate
from idlm_ds.data.corpus import read_corpus, split_documents
from idlm_ds.data.windows import in_order, pack
from idlm_ds.engine.dist import World
from idlm_ds.evals.cells import Cell, Store, read_json, write_json
from idlm_ds.evals.features import last_token_features
from idlm_ds.evals.gradient_distance import gradient_distance
from idlm_ds.evals.judge import Judge
from idlm_ds.evals.mauve import mauve_score

Measure = Callable[[Sequence[str], Sequence[str]], dict[str, object]]


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
    # What follows a BOS can have gradients a thousand times as long as the rest.
    bare = Judge(judge.model, judge.tokenizer, name=judge.name, context=judge.context)
    measures: dict[str, Measure] = {
        "mauve": lambda real, texts: _mauve(judge, real, texts, options.batch),
        "gm": lambda real, texts: gradient_distance(bare, real, texts).to_json(),
    }
    found: dict[Cell, dict[str, Any]] = {cell: {} for cell in cells}
    for metric in options.metrics:
        for i, cell in enumerate(tqdm(cells, unit="set", desc=metric, disable=not world.is_first)):
            if i % world.size != world.rank:
                continue
            real = _reference(cell, options)
            file = store.score(cell, f"{judge.name}.{metric}-{_hash(real)}")
            if not file.exists():
                texts = store.read_samples(cell).texts
                write_json(file, measures[metric](real, texts))
            found[cell][metric] = read_json(file)
    shares = world.gather({cell.key: told for cell, told in found.items() if told})
    together: dict[str, dict[str, Any]] = {}
    for share in shares:
        for key, told in share.items():
            together.setdefault(key, {}).update(told)
    return {cell: together.get(cell.key, {}) for cell in cells}


def _mauve(
    judge: Judge, real: Sequence[str], texts: Sequence[str], batch: int
) -> dict[str, object]:
    features = (last_token_features(judge, part, batch=batch) for part in (real, texts))
    return mauve_score(*features).to_json()


def _reference(cell: Cell, options: GenPplOptions) -> list[str]:
    """As many real passages as there are samples, of as many tokens."""
    tokenizer = load_tokenizer(options.tokenizer or "assets:tokenizer", "--tokenizer")
    documents = read_corpus(locate(options.reference, "--reference"))
    if options.heldout_every is not None:
        _, documents = split_documents(documents, heldout_every=options.heldout_every)
    windows = in_order(pack(documents, tokenizer), cell.length, cell.num_samples)
    return tokenizer.decode(windows.tolist())


def _hash(texts: Sequence[str]) -> str:
    return hashlib.blake2b(json.dumps(list(texts)).encode(), digest_size=6).hexdigest()
