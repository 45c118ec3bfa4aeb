"""The share of the questions in a file that saved models answer correctly.

A prompt is a question and a newline, as in TinyGSM, and the model continues it up to the end of
text. ``metrics/answers.py`` reads the answer; nothing that was written is run.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from idlm_ds.console import say
from idlm_ds.engine.dist import World
from idlm_ds.errors import UserError
from idlm_ds.evaluation.cell import Cell, by_setting
from idlm_ds.evaluation.completion import Completer, Speed
from idlm_ds.evaluation.options import AccuracyOptions
from idlm_ds.evaluation.questions import PROMPT, Question, read_questions
from idlm_ds.evaluation.row import Row, setting_columns, with_error
from idlm_ds.evaluation.sources import Source, find_source, sampler_configs
from idlm_ds.evaluation.store import write_text
from idlm_ds.evaluation.table import to_text, write_results
from idlm_ds.metrics.accumulate import MeanAccumulator
from idlm_ds.metrics.answers import answer_in, is_same, wilson
from idlm_ds.provenance import describe_machine

COLUMNS = {
    "model": "model",
    "sampler": "sampler",
    "precision": "precision",
    "steps": "steps",
    "temperature": "T",
    "nucleus": "top-p",
    "seeds": "seeds",
    "num_samples": "questions",
    "accuracy": "accuracy",
    "accuracy_low": "95 % from",
    "accuracy_high": "to",
    "answered": "answered",
    "nfe": "NFE",
    "tokens_per_forward": "tokens/forward",
    "tokens_per_s": "tokens/s",
}


def run_accuracy(options: AccuracyOptions, world: World) -> None:
    """Answer the questions without an answer on disk, then write and print the table.

    Collective: every rank must call. Each answers its share of every batch of questions; answers
    do not depend on how many there are.

    Raises:
        UserError: A file, a name or a combination of options cannot be used.
    """
    questions, configs = read_questions(options.data), sampler_configs(options.grid)
    chosen = range(len(questions))[: options.limit]
    sources = [
        find_source(spec, options.model, configs, options.seeds, len(questions))
        for spec in options.checkpoints
    ]
    for source in sources:
        _check_room(source, [questions[i] for i in chosen], options)
    rows: list[Row] = []
    for source in sources:
        answers = _answer(source, questions, chosen, options, world)
        if world.is_first:
            rows += _rows(answers, chosen, options, world)
    if world.is_first:
        settings = {"data": str(options.data), "prompt": PROMPT, "bos": options.bos}
        write_results(
            options.output, rows, settings | describe_machine(world.device.type, world.size)
        )
        say(to_text(rows, COLUMNS))
        say(f"written to {options.output}")


def _check_room(source: Source, questions: Sequence[Question], options: AccuracyOptions) -> None:
    length = source.opened.length
    ids = source.opened.tokenizer.encode([question.prompt for question in questions])
    longest = max(range(len(ids)), key=lambda i: len(ids[i]))
    if len(ids[longest]) + options.bos >= length:
        raise UserError(
            f"--data: line {longest + 1} has a prompt of {len(ids[longest]) + options.bos} tokens, "
            f"which leaves no room for an answer in the {length} of a sequence of "
            f"{source.opened.model.spec}"
        )


Item = dict[str, Any]
"""A line of the file of a cell: a question and what the model answered."""


def items_path(cell: Cell, questions: Sequence[Question], options: AccuracyOptions) -> Path:
    """Path of a cell's answers; its name depends on questions and prompts, too."""
    content = [[PROMPT, options.bos], *(asdict(q) for q in questions)]
    digest = hashlib.blake2b(json.dumps(content).encode(), digest_size=6).hexdigest()
    return options.output / "items" / f"{cell.key}-{digest}.jsonl"


def _read_items(path: Path) -> dict[int, Item]:
    if not path.exists():
        return {}
    try:
        items = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        return {item["index"]: item for item in items}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it to draw it again") from error


def _write_items(path: Path, items: Mapping[int, Item]) -> None:
    lines = [
        json.dumps(items[i], ensure_ascii=False, allow_nan=False) + "\n" for i in sorted(items)
    ]
    write_text(path, "".join(lines))


def _answer(
    source: Source,
    questions: Sequence[Question],
    chosen: Sequence[int],
    options: AccuracyOptions,
    world: World,
) -> dict[Cell, dict[int, Item]]:
    """Collective: give the first rank all answers of a model; it writes them batch by batch."""
    paths = {cell: items_path(cell, questions, options) for cell in source.cells}
    done = {cell: _read_items(path) if world.is_first else {} for cell, path in paths.items()}
    missing: list[list[int]] = world.agree(
        [[i for i in chosen if i not in d] for d in done.values()]
    )
    if not any(missing):
        return done
    network = source.opened.load(world.device)
    at_once = options.batch * world.size
    with tqdm(total=sum(map(len, missing)), unit="question", disable=not world.is_first) as bar:
        for (cell, path), which in zip(paths.items(), missing, strict=True):
            chain = source.cells[cell]
            model = Completer.of(
                source.opened,
                network,
                chain,
                bos=options.bos,
                seed=cell.seed,
                device=world.device,
            )
            bar.set_description(f"{cell.steps} steps, {cell.sampler}, seed {cell.seed}")
            for first in range(0, len(which), at_once):
                items = _together(which[first : first + at_once], model, questions, options, world)
                bar.update(len(items))
                if world.is_first:
                    done[cell] |= items
                    _write_items(path, done[cell])
    return done


def _together(
    which: Sequence[int],
    model: Completer,
    questions: Sequence[Question],
    options: AccuracyOptions,
    world: World,
) -> dict[int, Item]:
    """Collective: answer questions, each rank every ``world.size``-th; all get all answers."""
    began = time.perf_counter()
    local_items = _items(which[world.rank :: world.size], model, questions, options.batch)
    items = [item for share in world.gather(local_items) for item in share]
    seconds = (time.perf_counter() - began) / len(items)
    return {item["index"]: item | {"seconds": seconds} for item in items}


def _items(
    which: Sequence[int], model: Completer, questions: Sequence[Question], batch: int
) -> list[Item]:
    if not which:
        return []
    prompts = [model.encode(questions[i].prompt) for i in which]
    items = []
    for i, completion in zip(
        which, model.complete(prompts, which, stream="accuracy", batch=batch), strict=True
    ):
        answer = answer_in(completion.text)
        items.append(
            {
                "index": i,
                "prompt": questions[i].prompt,
                "output": completion.text,
                "answer": answer,
                "reference": questions[i].answer,
                "is_correct": is_same(answer, questions[i].answer),
                "tokens": completion.tokens,
                "nfe": completion.nfe,
            }
        )
    return items


def _rows(
    answers: Mapping[Cell, Mapping[int, Item]],
    chosen: Sequence[int],
    options: AccuracyOptions,
    world: World,
) -> list[Row]:
    """Make one row for all seeds of a setting."""
    rows: list[Row] = []
    for cells in by_setting(answers):
        rows.append(
            {
                **setting_columns(cells),
                "num_samples": len(chosen),
                "data": str(options.data),
                **_figures([[answers[cell][i] for i in chosen] for cell in cells]),
                "machine": describe_machine(world.device.type, world.size),
            }
        )
    return rows


def _figures(runs: Sequence[Sequence[Item]]) -> Row:
    """Compute figures of runs over the same questions; each counts once, by its mean over runs."""
    shares = [
        statistics.fmean(item["is_correct"] for item in items) for items in zip(*runs, strict=True)
    ]
    mean = MeanAccumulator()
    mean.update(torch.tensor(shares, dtype=torch.float64))
    accuracy = mean.compute()
    interval = wilson(accuracy.value, accuracy.count)
    items = [item for run in runs for item in run]
    speed = Speed(
        count=len(items),
        tokens=sum(item["tokens"] for item in items),
        nfe=sum(item["nfe"] for item in items),
        seconds=sum(item["seconds"] for item in items),
    )
    return {
        **with_error("accuracy", accuracy),
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "answered": statistics.fmean(item["answer"] is not None for item in items),
        **speed.figures(),
        "seconds": speed.seconds,
    }
