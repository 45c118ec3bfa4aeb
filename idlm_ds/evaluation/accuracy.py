"""The share of the questions in a file that saved models answer correctly.

A prompt is a question and a newline, as in TinyGSM, and the model continues it up to the end of
text. ``metrics/answers.py`` reads the answer; nothing that was written is run.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
    "latent": "latent",
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


Item = dict[str, Any]
"""A line of the file of a cell: a question and what the model answered."""


def run_accuracy(options: AccuracyOptions, world: World) -> None:
    """Answer the questions without an answer on disk, then write and print the table.

    Collective: every rank must call. Each answers its share of every batch of questions; answers
    do not depend on how many there are.

    Raises:
        UserError: A file, a name or a combination of options cannot be used.
    """
    questions, configs = read_questions(options.data), sampler_configs(options.grid)
    sources = [
        find_source(spec, options.model, configs, options.seeds, len(questions))
        for spec in options.checkpoints
    ]
    exam = _Exam(questions[: options.limit], _digest(questions, options.bos), options, world)
    for source in sources:
        exam.check_room(source)
    rows: list[Row] = []
    data, machine = str(options.data), describe_machine(world.device.type, world.size)
    for source in sources:
        answers = exam.answer(source)
        if world.is_first:
            rows += [
                {
                    **setting_columns(cells),
                    "num_samples": len(exam.questions),
                    "data": data,
                    **_figures([[answers[cell][i] for i in exam.numbers] for cell in cells]),
                    "machine": machine,
                }
                for cells in by_setting(answers)
            ]
    if world.is_first:
        settings = {"data": data, "prompt": PROMPT, "bos": options.bos}
        write_results(options.output, rows, settings | machine)
        say(to_text(rows, COLUMNS))
        say(f"written to {options.output}")


def _digest(questions: Sequence[Question], bos: bool) -> str:
    content = [[PROMPT, bos], *(asdict(question) for question in questions)]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class _Exam:
    """Questions that are put to models."""

    questions: Sequence[Question]
    digest: str
    """Of all questions of the file, asked or not, and of their prompts; names files of answers."""

    options: AccuracyOptions
    world: World

    @property
    def numbers(self) -> range:
        return range(len(self.questions))

    def check_room(self, source: Source) -> None:
        length, bos = source.opened.length, self.options.bos
        ids = source.opened.tokenizer.encode([question.prompt for question in self.questions])
        sizes = [len(row) + bos for row in ids]
        longest = max(sizes)
        if longest >= length:
            raise UserError(
                f"--data: line {sizes.index(longest) + 1} has a prompt of {longest} tokens, which "
                f"leaves no room for an answer in the {length} of a sequence of "
                f"{source.opened.model.spec}"
            )

    def answer(self, source: Source) -> dict[Cell, dict[int, Item]]:
        """Give the first rank all answers of a model, written batch by batch; collective."""
        world, folder = self.world, self.options.output / "items"
        paths = {cell: folder / f"{cell.key}-{self.digest}.jsonl" for cell in source.cells}
        done = {cell: _read_items(path) if world.is_first else {} for cell, path in paths.items()}
        missing: list[list[int]] = world.agree(
            [[i for i in self.numbers if i not in items] for items in done.values()]
        )
        if not any(missing):
            return done
        network = source.opened.load(world.device)
        at_once = self.options.batch * world.size
        with tqdm(total=sum(map(len, missing)), unit="question", disable=not world.is_first) as bar:
            for (cell, path), which in zip(paths.items(), missing, strict=True):
                model = Completer.of(
                    source.opened,
                    network,
                    source.cells[cell],
                    bos=self.options.bos,
                    seed=cell.seed,
                    device=world.device,
                )
                bar.set_description(f"{cell.steps} steps, {cell.sampler}, seed {cell.seed}")
                for first in range(0, len(which), at_once):
                    items = self._together(which[first : first + at_once], model)
                    bar.update(len(items))
                    if world.is_first:
                        done[cell] |= items
                        _write_items(path, done[cell])
        return done

    def _together(self, which: Sequence[int], model: Completer) -> dict[int, Item]:
        """Answer questions, each rank every ``world.size``-th; all get all answers; collective."""
        began = time.perf_counter()
        local_items = self._items(which[self.world.rank :: self.world.size], model)
        items = [item for share in self.world.gather(local_items) for item in share]
        seconds = (time.perf_counter() - began) / len(items)
        return {item["index"]: item | {"seconds": seconds} for item in items}

    def _items(self, which: Sequence[int], model: Completer) -> list[Item]:
        if not which:
            return []
        prompts = [model.encode(self.questions[i].prompt) for i in which]
        completions = model.complete(prompts, which, stream="accuracy", batch=self.options.batch)
        items = []
        for i, completion in zip(which, completions, strict=True):
            question, answer = self.questions[i], answer_in(completion.text)
            items.append(
                {
                    "index": i,
                    "prompt": question.prompt,
                    "output": completion.text,
                    "answer": answer,
                    "reference": question.answer,
                    "is_correct": is_same(answer, question.answer),
                    "tokens": completion.tokens,
                    "nfe": completion.nfe,
                }
            )
        return items


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


def _figures(runs: Sequence[Sequence[Item]]) -> Row:
    """Compute figures of runs over the same questions; each counts once, by its mean over runs."""
    shares = [
        statistics.fmean(item["is_correct"] for item in items) for items in zip(*runs, strict=True)
    ]
    mean = MeanAccumulator()
    mean.update(torch.tensor(shares, dtype=torch.float64))
    accuracy = mean.compute()
    low, high = wilson(accuracy.value, accuracy.count)
    items = [item for run in runs for item in run]
    speed = Speed(
        count=len(items),
        tokens=sum(item["tokens"] for item in items),
        nfe=sum(item["nfe"] for item in items),
        seconds=sum(item["seconds"] for item in items),
    )
    return {
        **with_error("accuracy", accuracy),
        "accuracy_low": low,
        "accuracy_high": high,
        "answered": statistics.fmean(item["answer"] is not None for item in items),
        **speed.figures(),
        "seconds": speed.seconds,
    }
