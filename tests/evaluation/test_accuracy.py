"""Questions answered by a model: verdicts, figures, and what is not answered again."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from idlm_ds.cli import parse_options
from idlm_ds.engine.dist import World
from idlm_ds.errors import UserError
from idlm_ds.evaluation.accuracy import run_accuracy
from idlm_ds.evaluation.completion import Completer, Completion
from idlm_ds.evaluation.options import AccuracyOptions, ChainGrid
from tests.distributed.harness import run_ranks
from tests.toy_models import random_teacher

from .test_genppl import ALONE
from .writers import tokenizer

QUESTIONS = [("one?", 1), ("two?", 2), ("three?", 3), ("four?", 4), ("five?", 5), ("six?", 6)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("accuracy") / "teacher"
    random_teacher(folder, tokenizer())
    return folder


@pytest.fixture
def options(teacher, tmp_path) -> AccuracyOptions:
    data = tmp_path / "data.jsonl"
    lines = [json.dumps({"question": q, "answer": f"#### {a}"}) for q, a in QUESTIONS]
    data.write_text("\n".join(lines))
    return AccuracyOptions(
        checkpoints=[str(teacher)],
        grid=ChainGrid(steps=[2]),
        seeds=[0, 1],
        batch=2,
        output=tmp_path / "results",
        data=data,
    )


def rows(options: AccuracyOptions) -> list[dict[str, Any]]:
    return json.loads((options.output / "results.json").read_text())["rows"]


def items(options: AccuracyOptions) -> dict[str, list[dict[str, Any]]]:
    """What is kept of each cell, but for the time it took."""
    files = sorted((options.output / "items").iterdir())
    kept = {path.name: map(json.loads, path.read_text().splitlines()) for path in files}
    return {k: [{**item, "seconds": None} for item in v] for k, v in kept.items()}


def test_figures_are_those_of_the_verdicts(options, monkeypatch):
    texts = {0: "#### 1", 1: "2, not 3", 2: "so 3.0", 3: "none", 4: "#### 5", 5: "def f():\n  x"}

    def complete(self: Completer, prompts, samples, *, stream: str, batch: int):
        assert [self.tokenizer.decode([p])[0] for p in prompts] == [
            f"{QUESTIONS[i][0]}\n" for i in samples
        ]
        # Another seed gets one more right.
        written = texts | ({1: "2"} if self.seed else {})
        return [Completion(written[i], tokens=3, nfe=2) for i in samples]

    monkeypatch.setattr(Completer, "complete", complete)
    run_accuracy(options, ALONE)
    (row,) = rows(options)
    shares = [1, 0.5, 1, 0, 1, 0]
    mean = sum(shares) / 6
    assert row["accuracy"] == pytest.approx(mean)
    variance = sum((x - mean) ** 2 for x in shares) / 5
    assert row["accuracy_se"] == pytest.approx(math.sqrt(variance / 6))
    # Wilson's ends are as far from the mean as 1.96 of their own standard errors.
    for end in (row["accuracy_low"], row["accuracy_high"]):
        assert abs(mean - end) / math.sqrt(end * (1 - end) / 6) == pytest.approx(1.95996, rel=1e-4)
    assert row["answered"] == pytest.approx(4 / 6)
    assert (row["nfe"], row["tokens_per_forward"]) == (2.0, 1.5)
    assert row["tokens_per_s"] == pytest.approx(36 / row["seconds"])
    assert (row["num_samples"], row["seeds"], row["steps"]) == (6, [0, 1], 2)
    kept = next(items for name, items in items(options).items() if "-s0-" in name)
    assert kept[1] == {
        "index": 1,
        "prompt": "two?\n",
        "output": "2, not 3",
        "answer": 3.0,
        "reference": 2.0,
        "is_correct": False,
        "tokens": 3,
        "nfe": 2,
        "seconds": None,
    }
    assert [item["is_correct"] for item in kept] == [True, False, True, False, True, False]
    assert [item["answer"] for item in kept] == [1.0, 3.0, 3.0, None, 5.0, None]


def _on_ranks(world: World, options: AccuracyOptions) -> list[int]:
    """Which questions this rank answers."""
    answered, honest = [], Completer.complete

    def complete(self: Completer, prompts, samples, **more: Any):
        answered.extend(samples)
        return honest(self, prompts, samples, **more)

    Completer.complete = complete
    run_accuracy(options, world)
    return answered


def test_answers_do_not_depend_on_the_batch_or_the_number_of_ranks(options, tmp_path):
    run_accuracy(options, ALONE)
    wanted = items(options)
    assert len(wanted) == 2
    for batch, ranks in ((1, 1), (7, 1), (2, 2)):
        other = replace(options, output=tmp_path / f"{batch}-{ranks}", batch=batch)
        if ranks == 1:
            run_accuracy(other, ALONE)
        else:
            assert run_ranks(_on_ranks, ranks, other) == [[0, 2, 4] * 2, [1, 3, 5] * 2]
        assert items(other) == wanted
    first, second = wanted.values()
    assert [item["output"] for item in first] != [item["output"] for item in second]


def test_only_what_has_no_answer_is_asked_again(options, monkeypatch):
    run_accuracy(options, ALONE)
    before = items(options)
    files = sorted((options.output / "items").iterdir())
    lines = files[0].read_text().splitlines(keepends=True)
    files[0].write_text("".join([lines[0], *lines[3:]]))
    answered, honest = [], Completer.complete

    def complete(self: Completer, prompts, samples, **more: Any):
        answered.extend(samples)
        return honest(self, prompts, samples, **more)

    monkeypatch.setattr(Completer, "complete", complete)
    run_accuracy(options, ALONE)
    assert answered == [1, 2]
    assert items(options) == before
    run_accuracy(options, ALONE)
    assert answered == [1, 2]


def test_what_is_done_is_on_disk_after_every_batch(options, monkeypatch):
    honest, calls = Completer.complete, []

    def complete(self: Completer, *arguments: Any, **more: Any):
        calls.append(more)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return honest(self, *arguments, **more)

    monkeypatch.setattr(Completer, "complete", complete)
    with pytest.raises(KeyboardInterrupt):
        run_accuracy(options, ALONE)
    (kept,) = items(options).values()
    assert [item["index"] for item in kept] == [0, 1, 2, 3]


def test_a_few_questions_of_a_file_are_the_first_of_all(options, monkeypatch):
    run_accuracy(replace(options, limit=3), ALONE)
    few: Mapping[str, Any] = items(options)
    assert rows(options)[0]["num_samples"] == 3
    run_accuracy(options, ALONE)
    assert rows(options)[0]["num_samples"] == 6
    assert {name: kept[:3] for name, kept in items(options).items()} == few
    run_accuracy(replace(options, limit=2), ALONE)
    assert rows(options)[0]["num_samples"] == 2
    assert all(len(kept) == 6 for kept in items(options).values())


def test_other_questions_and_other_prompts_are_other_files(options):
    run_accuracy(options, ALONE)
    options.data.write_text(options.data.read_text().replace("six?", "sixth?"))
    run_accuracy(options, ALONE)
    assert len(items(options)) == 4
    run_accuracy(replace(options, bos=True), ALONE)
    assert len(items(options)) == 6


def test_a_damaged_file_of_answers_is_named(options):
    run_accuracy(options, ALONE)
    path = min((options.output / "items").iterdir())
    path.write_text("[1]\n")
    with pytest.raises(UserError, match=f"^{path}: damaged .*; delete it to draw it again$"):
        run_accuracy(options, ALONE)


def test_a_prompt_without_room_for_an_answer_is_refused_before_anything_is_drawn(options):
    lines = [{"question": "a", "answer": "1"}, {"question": "a " * 20, "answer": "1"}]
    options.data.write_text("\n".join(map(json.dumps, lines)))
    message = r"^--data: line 2 has a prompt of \d+ tokens, which leaves no room .* in the 16 of"
    with pytest.raises(UserError, match=message) as error:
        run_accuracy(options, ALONE)
    assert "\n" not in str(error.value)
    assert not options.output.exists()


def test_a_limit_of_nothing_is_refused(options):
    with pytest.raises(UserError, match="--limit: must be at least 1, got 0"):
        replace(options, limit=0)


def test_no_model_is_refused(options):
    with pytest.raises(UserError, match="the following arguments are required: --checkpoint"):
        parse_options(AccuracyOptions, "Program.", ["--data", str(options.data)])
