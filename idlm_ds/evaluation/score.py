"""Figures of sets of samples: what is missing is computed, everything is kept, rows are made."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from idlm_ds.console import say
from idlm_ds.engine.dist import World
from idlm_ds.evaluation.distances import distances_of
from idlm_ds.evaluation.grid import GenPplOptions
from idlm_ds.evaluation.store import Cell, Drawn, Store, by_setting, read_json, write_json
from idlm_ds.evaluation.table import Row
from idlm_ds.metrics.accumulate import Estimate, MeanAccumulator, PerplexityAccumulator
from idlm_ds.metrics.entropy import distinct_ngrams, unigram_entropy
from idlm_ds.metrics.judge import Judge, Masking
from idlm_ds.metrics.repetition import repeated_tokens
from idlm_ds.metrics.self_bleu import self_bleu

NGRAM = 4
"""Length of the blocks that count as repetition, and longest order of self-BLEU."""


def score(
    judges: Sequence[Judge],
    cells: Sequence[Cell],
    store: Store,
    options: GenPplOptions,
    world: World,
) -> list[Row]:
    """One row for all seeds of a setting, for each judge and each rule of what it scores.

    Collective: every rank must call.

    Returns:
        Rows on the first rank, nothing on the others.
    """
    settings = by_setting(cells)
    common = [_common(same, store) if world.is_first else {} for same in settings]
    rows: list[Row] = []
    for judge in judges:
        distances = distances_of(judge, cells, store, options, world)
        for masking in options.maskings:
            _score_missing(judge, masking, cells, store, options.batch, world)
            if not world.is_first:
                continue
            for same, told in zip(settings, common, strict=True):
                scores = [read_json(store.score(cell, _name(judge, masking))) for cell in same]
                judged = _judged(judge, masking) | _perplexity(scores)
                rows.append(told | judged | _mean_distances([distances[cell] for cell in same]))
    return rows


def missing_files(paths: Sequence[Path], world: World) -> list[int]:
    """Collective: which files the first rank does not find."""
    found = [i for i, path in enumerate(paths) if not path.exists()] if world.is_first else None
    missing: list[int] = world.agree(found)
    return missing


def _name(judge: Judge, masking: Masking) -> str:
    return judge.name if masking == "published" else f"{judge.name}.{masking}"


def _score_missing(
    judge: Judge,
    masking: Masking,
    cells: Sequence[Cell],
    store: Store,
    batch: int,
    world: World,
) -> None:
    """Collective: each rank scores every so many texts."""
    files = [store.score(cell, _name(judge, masking)) for cell in cells]
    missing = missing_files(files, world)
    if world.is_first:
        say(f"{_name(judge, masking)}: {len(missing)} of {len(cells)} sets to score")
    for i in tqdm(missing, unit="set", disable=not world.is_first):
        drawn = store.read_samples(cells[i])
        mine = drawn.texts[world.rank :: world.size]
        nats, tokens = judge.score(mine, batch, masking=masking)
        shares = world.gather((nats.tolist(), tokens.tolist()))
        if world.is_first:
            all_nats, all_tokens = [0.0] * len(drawn.texts), [0] * len(drawn.texts)
            for rank, (share, counts) in enumerate(shares):
                all_nats[rank :: world.size], all_tokens[rank :: world.size] = share, counts
            scores = {"judge": judge.name, "masking": masking}
            write_json(files[i], {**scores, "nats": all_nats, "tokens": all_tokens})


def _common(cells: Sequence[Cell], store: Store) -> dict[str, Any]:
    """What no judge has a part in."""
    first, drawn = cells[0], [store.read_samples(cell) for cell in cells]
    fields = asdict(first)
    del fields["seed"]
    seconds = sum(one.seconds for one in drawn if one.seconds is not None) or None
    num_tokens = len(cells) * first.num_samples * first.length
    return {
        **fields,
        "num_samples": len(cells) * first.num_samples,
        "seeds": [cell.seed for cell in cells],
        "nfe": None if drawn[0].nfe is None else statistics.fmean(one.nfe or 0.0 for one in drawn),
        **_variety(drawn),
        "seconds": seconds,
        "tokens_per_s": num_tokens / seconds if seconds else None,
        "machine": dict(drawn[0].machine),
    }


def _judged(judge: Judge, masking: Masking) -> dict[str, Any]:
    return {
        "judge": judge.name,
        "judge_context": judge.context,
        "judge_bos": judge.prefix_bos,
        "masking": masking,
    }


def _perplexity(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    together, each = PerplexityAccumulator(), []
    for one in scores:
        alone = PerplexityAccumulator()
        nats = torch.tensor(one["nats"], dtype=torch.float64)
        alone.update(nats, torch.tensor(one["tokens"]))
        together.merge(alone)
        if sum(one["tokens"]):
            each.append(alone.compute().value)
    # Texts of nothing but EOS have no scored token.
    found = _with_error("gen_ppl", together.compute() if each else None)
    spread = statistics.stdev(each) if len(each) > 1 else None
    return found | {"gen_ppl_std_over_seeds": spread}


def _variety(drawn: Sequence[Drawn]) -> dict[str, Any]:
    entropy, repetition = MeanAccumulator(), MeanAccumulator()
    distinct, bleu = [], []
    for one in drawn:
        width = min(NGRAM, one.tokens.shape[1])
        entropy.update(unigram_entropy(one.tokens))
        repetition.update(repeated_tokens(one.tokens, width))
        distinct.append(distinct_ngrams(one.tokens, min(2, width)))
        if len(one.tokens) > 1:
            bleu.append(self_bleu(one.tokens, order=width).mean().item())
    return {
        **_with_error("entropy", entropy.compute()),
        "distinct_2": statistics.fmean(distinct),
        **_with_error("repetition", repetition.compute()),
        "self_bleu": statistics.fmean(bleu) if bleu else None,
    }


def _with_error(name: str, found: Estimate | None) -> dict[str, float | None]:
    if found is None:
        return {name: None, f"{name}_se": None}
    return {name: found.value, f"{name}_se": found.se if found.count > 1 else None}


def _mean_distances(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds; a spread is over all clusterings of all seeds."""
    found: dict[str, Any] = {}
    if all("mauve" in one for one in each):
        values = [value for one in each for value in one["mauve"]["values"]]
        settings = {k: v for k, v in each[0]["mauve"].items() if k not in ("mean", "std", "values")}
        found |= {"mauve": statistics.fmean(values), "mauve_std": statistics.stdev(values)}
        found |= {"mauve_settings": settings}
    if all("gm" in one for one in each):
        errors = [one["gm"]["se"] for one in each]
        is_known = all(error is not None for error in errors)
        found["gm"] = statistics.fmean(one["gm"]["value"] for one in each)
        found["gm_se"] = sum(e**2 for e in errors) ** 0.5 / len(errors) if is_known else None
    return found
