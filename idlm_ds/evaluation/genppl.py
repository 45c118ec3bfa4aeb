"""Evaluation of saved models by their samples: draw what is missing, score it, make the table."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from idlm_ds.build.judges import load_judge
from idlm_ds.console import say
from idlm_ds.engine.dist import World
from idlm_ds.evaluation.grid import GenPplOptions, Source, adopt, find_source
from idlm_ds.evaluation.score import missing_files, score
from idlm_ds.evaluation.store import Cell, Drawn, Store
from idlm_ds.evaluation.table import Row, to_text, write_results
from idlm_ds.metrics.judge import Judge
from idlm_ds.provenance import describe_machine
from idlm_ds.samplers.batched import join, sample_batched

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
    judges = [load_judge(spec, world.device, "--judge") for spec in options.judges]
    rows = evaluate(sources, texts, judges, options, world)
    if world.is_first:
        write_results(options.output, rows, settings_of(options, world))
        say(to_text(rows))
        say(f"written to {options.output}")


def evaluate(
    sources: Sequence[Source],
    texts: Sequence[tuple[Cell, Drawn]],
    judges: Sequence[Judge],
    options: GenPplOptions,
    world: World,
) -> list[Row]:
    """Draw and score the cells that are not on disk.

    Collective: every rank must call.

    Returns:
        Rows of all judges on the first rank, nothing on the others.

    Raises:
        UserError: The folder cannot be written.
    """
    store = Store(options.output)
    for source in sources:
        _draw_missing(source, options, store, world)
    if world.is_first:
        for cell, drawn in texts:
            store.write_samples(cell, drawn)
    sampled = [cell for source in sources for cell in source.cells]
    cells = list(dict.fromkeys([*sampled, *(cell for cell, _ in texts)]))
    world.barrier()
    return score(judges, cells, store, options, world)


def _draw_missing(source: Source, options: GenPplOptions, store: Store, world: World) -> None:
    cells = list(source.cells)
    missing = missing_files([store.samples(cell) for cell in cells], world)
    if world.is_first:
        say(f"{source.opened.model.spec}: {len(missing)} of {len(cells)} sets of samples to draw")
    if not missing:
        return
    network = source.opened.load(world.device)
    count = len(missing) * len(range(world.rank, options.num_samples, world.size))
    with tqdm(total=count, unit="sample", disable=not world.is_first) as bar:
        for i in missing:
            bar.set_description(f"{cells[i].steps} steps, {cells[i].sampler}")
            drawn = _draw(cells[i], source, network, options.batch, world, bar)
            if world.is_first:
                store.write_samples(cells[i], drawn)


def _draw(
    cell: Cell, source: Source, network: nn.Module, batch: int, world: World, bar: Any
) -> Drawn:
    """Collective: one set, each rank every so many samples of it."""
    began = time.perf_counter()
    mine = range(world.rank, cell.num_samples, world.size)
    parts = []
    for first in range(0, max(len(mine), 1), batch):
        part = sample_batched(
            source.opened.process,
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
    return Drawn(
        tokens=tokens,
        texts=source.opened.tokenizer.decode(tokens.tolist()),
        nfe=world.sum(share.evaluations.sum()).item() / cell.num_samples,
        seconds=time.perf_counter() - began,
        dtypes=[source.cells[cell].precision],
        machine=describe_machine(world.device.type, world.size),
    )


def settings_of(options: GenPplOptions, world: World) -> dict[str, Any]:
    """What all rows of an evaluation share."""
    return {
        "batch_size": options.batch,
        "output": str(options.output),
        **describe_machine(world.device.type, world.size),
    }
