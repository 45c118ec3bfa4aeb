"""Evaluation of saved models by their samples: draw what is missing, score it, make the table."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from idlm_ds.build.judges import load_judge
from idlm_ds.console import say
from idlm_ds.engine.dist import World
from idlm_ds.evaluation.cell import Cell, by_setting
from idlm_ds.evaluation.distances import Passages, distances_of, reference_passages
from idlm_ds.evaluation.draw import SampleSet, draw_cell
from idlm_ds.evaluation.options import EvaluationOptions, GenPplOptions
from idlm_ds.evaluation.row import Row, distance_columns, judge_columns, sample_columns
from idlm_ds.evaluation.score import Scores, score_set
from idlm_ds.evaluation.sources import Source, adopt, find_source, sampler_configs
from idlm_ds.evaluation.store import Store, missing_files, read_json, write_json
from idlm_ds.evaluation.table import to_text, write_results
from idlm_ds.metrics.judge import Judge, Masking
from idlm_ds.provenance import describe_machine

STREAM = "sample"


def run_genppl(options: GenPplOptions, world: World) -> None:
    """Draw and score the cells that are not on disk, then write and print all of them.

    Collective: every rank must call. Each draws and scores its share; the figures do not depend on
    how many there are.

    Raises:
        UserError: A file, a name or a combination of options cannot be used.
    """
    configs = sampler_configs(options.grid)
    sources = [
        find_source(spec, options.model, configs, options.seeds, options.num_samples)
        for spec in options.checkpoints
    ]
    texts = [adopt(path, options.model.tokenizer) for path in options.samples]
    judges = load_judges(options.judging.judges, world)
    rows = evaluate(sources, texts, judges, options, world)
    if world.is_first:
        write_results(options.output, rows, shared_settings(options, world))
        say(to_text(rows))
        say(f"written to {options.output}")


def load_judges(specs: Sequence[str], world: World) -> list[Judge]:
    """Load what ``--judge`` names."""
    return [load_judge(spec, world.device, "--judge") for spec in specs]


def evaluate(
    sources: Sequence[Source],
    texts: Sequence[tuple[Cell, SampleSet]],
    judges: Sequence[Judge],
    options: EvaluationOptions,
    world: World,
) -> list[Row]:
    """Draw and score the cells that are not on disk, and return the rows on the first rank.

    Collective: every rank must call.

    Raises:
        UserError: The folder cannot be written, the reference cannot be used, or a package is
            missing.
    """
    store = Store(options.output)
    for source in sources:
        _draw_missing(source, store, options.batch, world)
    if world.is_first:
        for cell, samples in texts:
            store.write_samples(cell, samples)
    cells = [cell for source in sources for cell in source.cells] + [cell for cell, _ in texts]
    world.barrier()
    return _score_cells(judges, list(dict.fromkeys(cells)), store, options, world)


def _draw_missing(source: Source, store: Store, batch: int, world: World) -> None:
    cells = list(source.cells)
    paths = [store.samples(cell) for cell in cells]
    missing: list[int] = world.agree(missing_files(paths) if world.is_first else None)
    if world.is_first:
        say(f"{source.opened.model.spec}: {len(missing)} of {len(cells)} sets of samples to draw")
    if not missing:
        return
    opened = source.opened
    network = opened.load(world.device)
    count = sum(len(range(world.rank, cells[i].num_samples, world.size)) for i in missing)
    with tqdm(total=count, unit="sample", disable=not world.is_first) as bar:
        draw = partial(
            draw_cell,
            process=opened.process,
            network=network,
            tokenizer=opened.tokenizer,
            stream=STREAM,
            batch=batch,
            ranks=world,
            progress=bar.update,
        )
        for cell in [cells[i] for i in missing]:
            bar.set_description(f"{cell.steps} steps, {cell.sampler}")
            samples = draw(cell, source.cells[cell])
            if world.is_first:
                store.write_samples(cell, samples)


def _score_cells(
    judges: Sequence[Judge],
    cells: Sequence[Cell],
    store: Store,
    options: EvaluationOptions,
    world: World,
) -> list[Row]:
    """Score what has not been scored, and make the rows on the first rank; collective.

    All seeds of a setting share a row, for each judge and each rule of what it scores.
    """
    judging, groups = options.judging, by_setting(cells)
    passages: Passages = {}
    if judging.metrics:
        passages = reference_passages(cells, judging, options.model.tokenizer)
    columns: list[dict[str, Any]] = []
    if world.is_first:
        columns = [
            sample_columns(group, [store.read_samples(cell) for cell in group]) for group in groups
        ]
    rows: list[Row] = []
    for judge in judges:
        distances = distances_of(
            judge, cells, store, judging.metrics, passages, batch=options.batch, world=world
        )
        for masking in judging.maskings:
            _score_missing(judge, masking, cells, store, options.batch, world)
            if not world.is_first:
                continue
            for group, of_samples in zip(groups, columns, strict=True):
                scores = [_read_scores(store, cell, judge, masking) for cell in group]
                of_judge = judge_columns(judge, masking, scores)
                of_distances = distance_columns([distances[cell] for cell in group])
                rows.append(of_samples | of_judge | of_distances)
    return rows


def judge_label(judge: str, masking: str) -> str:
    """Judge and rule in one word."""
    return judge if masking == "published" else f"{judge}.{masking}"


def _read_scores(store: Store, cell: Cell, judge: Judge, masking: Masking) -> Scores:
    content = read_json(store.score(cell, judge_label(judge.name, masking)))
    return Scores(
        torch.tensor(content["nats"], dtype=torch.float64),
        torch.tensor(content["tokens"], dtype=torch.long),
    )


def _score_missing(
    judge: Judge, masking: Masking, cells: Sequence[Cell], store: Store, batch: int, world: World
) -> None:
    """Score the cells whose file the first rank does not find; collective."""
    label = judge_label(judge.name, masking)
    files = [store.score(cell, label) for cell in cells]
    missing: list[int] = world.agree(missing_files(files) if world.is_first else None)
    if world.is_first:
        say(f"{label}: {len(missing)} of {len(cells)} sets to score")
    for i in tqdm(missing, unit="set", disable=not world.is_first):
        texts = store.read_samples(cells[i]).texts
        scores = score_set(judge, texts, masking=masking, batch=batch, ranks=world)
        if world.is_first:
            content = {"nats": scores.nats.tolist(), "tokens": scores.tokens.tolist()}
            write_json(files[i], {"judge": judge.name, "masking": masking, **content})


def shared_settings(options: EvaluationOptions, world: World) -> dict[str, Any]:
    """Collect what all rows of an evaluation share."""
    return {
        "batch_size": options.batch,
        "output": str(options.output),
        **describe_machine(world.device.type, world.size),
    }
