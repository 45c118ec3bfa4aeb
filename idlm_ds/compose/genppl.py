"""Evaluation of saved models by their samples: draw what is missing, score it, make the table."""

import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

import idlm_ds
from idlm_ds.compose.cells import GenPplOptions, Source, adopt, find_source
from idlm_ds.compose.output import git_commit
from idlm_ds.compose.report import load_judge
from idlm_ds.engine.dist import World
from idlm_ds.engine.weights import fill_weights
from idlm_ds.evals.accumulate import MeanAccumulator, PerplexityAccumulator
from idlm_ds.evals.cells import Cell, Drawn, Store, read_json, write_json
from idlm_ds.evals.entropy import distinct_ngrams, unigram_entropy
from idlm_ds.evals.judge import Judge
from idlm_ds.evals.results import Row, to_text, write_results
from idlm_ds.samplers.sets import join, sample_set
from idlm_ds.train.console import say

STREAM = "sample"


def run_genppl(options: GenPplOptions, world: World) -> None:
    """Draw and score the cells that are not on disk, then write and print all of them.

    Collective: every rank must call. Each draws and scores its share; the figures do not depend on
    how many there are.

    Raises:
        UserError: A file, a name or a combination of options cannot be used.
    """
    sources = [find_source(spec, options) for spec in options.checkpoints]
    texts = [adopt(path, options) for path in options.samples]
    rows = evaluate(sources, texts, options, world)
    if world.is_first:
        say(to_text(rows))
        say(f"written to {options.output}")


def evaluate(
    sources: Sequence[Source],
    texts: Sequence[tuple[Cell, Drawn]],
    options: GenPplOptions,
    world: World,
) -> list[Row]:
    """Draw and score the cells that are not on disk, and write the tables.

    Collective: every rank must call.

    Returns:
        Rows of all judges on the first rank, nothing on the others.

    Raises:
        UserError: A judge cannot be used, or the folder cannot be written.
    """
    store = Store(options.output)
    judges = [load_judge(spec, world.device, "--judge") for spec in options.judges]
    for source in sources:
        _draw_missing(source, options, store, world)
    if world.is_first:
        for cell, drawn in texts:
            store.write_samples(cell, drawn)
    cells = [*(cell for source in sources for cell in source.cells), *(cell for cell, _ in texts)]
    rows: list[Row] = []
    for judge in judges:
        _score_missing(judge, cells, store, options.batch, world)
        if world.is_first:
            rows += _rows(cells, store, judge)
    if world.is_first:
        write_results(options.output, rows, _settings(options, world))
    return rows


def _missing(paths: Sequence[Path], world: World) -> list[int]:
    """Collective: which files the first rank does not find."""
    found = [i for i, path in enumerate(paths) if not path.exists()] if world.is_first else None
    missing: list[int] = world.agree(found)
    return missing


def _draw_missing(source: Source, options: GenPplOptions, store: Store, world: World) -> None:
    cells = list(source.cells)
    missing = _missing([store.samples(cell) for cell in cells], world)
    if world.is_first:
        say(f"{source.model.spec}: {len(missing)} of {len(cells)} sets of samples to draw")
    if not missing:
        return
    fill_weights(source.network, source.model.weights)
    network = source.network.to(world.device).eval().requires_grad_(False)
    count = len(missing) * len(range(world.rank, options.num_samples, world.size))
    with tqdm(total=count, unit="sample", disable=not world.is_first) as bar:
        for i in missing:
            bar.set_description(f"{cells[i].steps} steps, {cells[i].sampler}")
            drawn = _draw(cells[i], source, network, options.batch, world, bar)
            if world.is_first:
                store.write_samples(cells[i], drawn)
    network.to("cpu")


def _draw(
    cell: Cell, source: Source, network: nn.Module, batch: int, world: World, bar: Any
) -> Drawn:
    """Collective: one set, each rank every so many samples of it."""
    began = time.perf_counter()
    mine = range(world.rank, cell.num_samples, world.size)
    parts = []
    for first in range(0, max(len(mine), 1), batch):
        part = sample_set(
            source.process,
            network,
            mine[first : first + batch],
            source.cells[cell],
            length=cell.length,
            seed=cell.seed,
            stream=STREAM,
            batch=batch,
            device=world.device,
        )
        parts.append(part)
        bar.update(len(part.tokens))
    share = join(parts)
    tokens = torch.empty(cell.num_samples, cell.length, dtype=torch.long)
    for rank, part in enumerate(world.gather(share.tokens.numpy())):
        tokens[rank :: world.size] = torch.from_numpy(part)
    dtypes = {name for names in world.gather([str(d) for d in share.dtypes]) for name in names}
    if dtypes != {f"torch.{cell.precision}"}:
        raise AssertionError(f"asked for {cell.precision} draws, saw {sorted(dtypes)}")
    return Drawn(
        tokens=tokens,
        texts=source.tokenizer.decode(tokens.tolist()),
        nfe=world.sum(share.evaluations.sum()).item() / cell.num_samples,
        seconds=time.perf_counter() - began,
        dtypes=[name.removeprefix("torch.") for name in sorted(dtypes)],
        machine=_machine(world),
    )


def _score_missing(
    judge: Judge, cells: Sequence[Cell], store: Store, batch: int, world: World
) -> None:
    """Collective: each rank scores every so many texts."""
    missing = _missing([store.score(cell, judge.name) for cell in cells], world)
    if world.is_first:
        say(f"{judge.name}: {len(missing)} of {len(cells)} sets to score")
    for i in tqdm(missing, unit="set", disable=not world.is_first):
        drawn = store.read_samples(cells[i])
        nats, tokens = judge.score(drawn.texts[world.rank :: world.size], batch)
        shares = world.gather((nats.tolist(), tokens.tolist()))
        if world.is_first:
            all_nats, all_tokens = [0.0] * len(drawn.texts), [0] * len(drawn.texts)
            for rank, (share, counts) in enumerate(shares):
                all_nats[rank :: world.size], all_tokens[rank :: world.size] = share, counts
            scores = {"judge": judge.name, "nats": all_nats, "tokens": all_tokens}
            write_json(store.score(cells[i], judge.name), scores)


def _rows(cells: Sequence[Cell], store: Store, judge: Judge) -> list[Row]:
    """One row for all seeds of a setting."""
    settings: dict[Cell, list[Cell]] = {}
    for cell in cells:
        settings.setdefault(replace(cell, seed=0), []).append(cell)
    return [_row(members, store, judge) for members in settings.values()]


def _row(cells: Sequence[Cell], store: Store, judge: Judge) -> Row:
    gen_ppl, entropy, each = PerplexityAccumulator(), MeanAccumulator(), []
    distinct, drawn = [], [store.read_samples(cell) for cell in cells]
    for cell, one in zip(cells, drawn, strict=True):
        scores, alone = read_json(store.score(cell, judge.name)), PerplexityAccumulator()
        nats_of = torch.tensor(scores["nats"], dtype=torch.float64)
        alone.update(nats_of, torch.tensor(scores["tokens"]))
        gen_ppl.merge(alone)
        if sum(scores["tokens"]):
            each.append(alone.compute().value)
        entropy.update(unigram_entropy(one.tokens))
        distinct.append(distinct_ngrams(one.tokens))
    # Texts of nothing but EOS have no scored token.
    ppl, nats = gen_ppl.compute() if each else None, entropy.compute()
    first = cells[0]
    fields = asdict(first)
    del fields["seed"]
    seconds = sum(one.seconds for one in drawn if one.seconds is not None) or None
    num_tokens = len(cells) * first.num_samples * first.length
    return {
        **fields,
        "num_samples": len(cells) * first.num_samples,
        "seeds": [cell.seed for cell in cells],
        "nfe": None if drawn[0].nfe is None else statistics.fmean(one.nfe or 0.0 for one in drawn),
        "judge": judge.name,
        "judge_context": judge.context,
        "gen_ppl": ppl and ppl.value,
        "gen_ppl_se": ppl.se if ppl and ppl.count > 1 else None,
        "gen_ppl_std_over_seeds": statistics.stdev(each) if len(each) > 1 else None,
        "entropy": nats.value,
        "entropy_se": nats.se if nats.count > 1 else None,
        "distinct_2": statistics.fmean(distinct),
        "seconds": seconds,
        "tokens_per_s": num_tokens / seconds if seconds else None,
        "machine": dict(drawn[0].machine),
    }


def _machine(world: World) -> dict[str, Any]:
    return {
        "idlm_ds": idlm_ds.__version__,
        "commit": git_commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(world.device.type),
        "ranks": world.size,
    }


def _settings(options: GenPplOptions, world: World) -> dict[str, Any]:
    return {"batch_size": options.batch, "output": str(options.output), **_machine(world)}
