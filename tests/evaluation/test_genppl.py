"""An evaluation: what is drawn, by whom, and what is not drawn again."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from idlm_ds.build.locate import ASSETS
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.errors import UserError
from idlm_ds.evaluation import genppl
from idlm_ds.evaluation.cell import Cell
from idlm_ds.evaluation.genppl import run_genppl
from idlm_ds.evaluation.options import ChainGrid, GenPplOptions, Judging
from idlm_ds.evaluation.sources import relaxation_of
from idlm_ds.metrics.judge import Judge
from idlm_ds.noise import Noise
from idlm_ds.recipes.sections import ProcessSection
from tests.distributed.harness import run_ranks
from tests.evaluation.changes import change
from tests.toy_models import random_judge, random_teacher

NUM_SAMPLES = 9


class Alone(World):
    """A world of one process, without a process group."""

    def barrier(self) -> None:
        pass

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def agree(self, value: Any) -> Any:
        return value


ALONE = Alone(0, 1, 0, torch.device("cpu"))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("models"), Tokenizer(ASSETS / "tokenizer")
    random_teacher(folder / "teacher", tokenizer)
    random_judge(folder / "judge", tokenizer)
    return folder


@pytest.fixture
def options(models, tmp_path) -> GenPplOptions:
    return GenPplOptions(
        checkpoints=[str(models / "teacher")],
        grid=ChainGrid(steps=[2, 3]),
        seeds=[0, 1],
        num_samples=NUM_SAMPLES,
        batch=4,
        judging=Judging(judges=[str(models / "judge")]),
        output=tmp_path / "results",
    )


def results(options: GenPplOptions) -> list[dict[str, Any]]:
    return json.loads((options.output / "results.json").read_text())["rows"]


def figures(options: GenPplOptions) -> list[dict[str, Any]]:
    """Rows without what the clock and the machine say."""
    timed = ("seconds", "tokens_per_s", "machine")
    return [{k: v for k, v in row.items() if k not in timed} for row in results(options)]


def tokens_of(options: GenPplOptions) -> dict[str, list[list[int]]]:
    files = (options.output / "samples").iterdir()
    return {path.name: json.loads(path.read_text())["tokens"] for path in files}


def _on_ranks(world: World, options: GenPplOptions) -> None:
    run_genppl(options, world)


def test_figures_do_not_depend_on_the_batch_or_the_number_of_ranks(options, tmp_path):
    run_genppl(options, ALONE)
    wanted, tokens = figures(options), tokens_of(options)
    assert len(tokens) == 4
    for batch, ranks in ((1, 1), (7, 1), (32, 1), (3, 2)):
        other = change(options, batch=batch, output=tmp_path / f"{batch}-{ranks}")
        if ranks == 1:
            run_genppl(other, ALONE)
        else:
            run_ranks(_on_ranks, ranks, other)
        assert tokens_of(other) == tokens
        for got, row in zip(figures(other), wanted, strict=True):
            for key, value in row.items():
                assert got[key] == (pytest.approx(value, rel=1e-6) if _is_figure(value) else value)


def _is_figure(value: object) -> bool:
    return isinstance(value, float)


def test_a_row_says_how_it_came_about(options):
    run_genppl(change(options, tails=["greedy"], precisions=["float32"], steps=[2]), ALONE)
    (row,) = results(options)
    settings = {
        "family": "mdlm",
        "sampler": "ancestral+greedy",
        "precision": "float32",
        "steps": 2,
        "temperature": 1.0,
        "nucleus": 1.0,
        "seeds": [0, 1],
        "num_samples": 2 * NUM_SAMPLES,
        "length": 16,
    }
    assert {key: row[key] for key in settings} == settings
    assert row["judge"].startswith("judge@")
    assert 1 <= row["nfe"] <= 2
    assert row["gen_ppl_se"] > 0
    assert row["machine"]["ranks"] == 1
    page = (options.output / "results.md").read_text()
    assert "ancestral+greedy" in page
    assert (options.output / "results.csv").read_text().startswith("model,")


def test_seeds_are_pooled_over_tokens(options):
    run_genppl(change(options, steps=[2]), ALONE)
    scores = [json.loads(p.read_text()) for p in (options.output / "scores").iterdir()]
    nats = sum(sum(score["nats"]) for score in scores)
    count = sum(sum(score["tokens"]) for score in scores)
    (row,) = results(options)
    assert row["gen_ppl"] == pytest.approx(math.exp(nats / count), rel=1e-12)
    assert row["gen_ppl_std_over_seeds"] > 0


def test_only_missing_cells_are_drawn_and_scored(options, monkeypatch):
    run_genppl(options, ALONE)
    before = figures(options)
    samples = sorted((options.output / "samples").iterdir())
    scores = sorted((options.output / "scores").iterdir())
    stamps = {path: path.stat().st_mtime_ns for path in [*samples, *scores]}
    gone = [samples[1], scores[1], scores[2]]
    for path in gone:
        path.unlink()
    drawn, scored = [], []
    monkeypatch.setattr(genppl, "draw_cell", _counted(genppl.draw_cell, drawn))
    monkeypatch.setattr(Judge, "score", _counted(Judge.score, scored))
    run_genppl(options, ALONE)
    assert (len(drawn), len(scored)) == (1, 2)
    assert figures(options) == before
    kept = [path for path in stamps if path not in gone]
    assert all(path.stat().st_mtime_ns == stamps[path] for path in kept)


def _counted(function: Any, calls: list[Any]) -> Any:
    def counted(*arguments: Any, **more: Any) -> Any:
        calls.append(arguments)
        return function(*arguments, **more)

    return counted


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_samples_are_drawn_in_the_precision_asked_for_and_say_so(options, monkeypatch, precision):
    drawn = []

    def uniform(noise: Noise, *shape: int, **settings: Any) -> torch.Tensor:
        drawn.append(honest(noise, *shape, **settings))
        return drawn[-1]

    honest = Noise.uniform
    monkeypatch.setattr(Noise, "uniform", uniform)
    run_genppl(change(options, steps=[2], seeds=[0], precisions=[precision]), ALONE)
    assert {str(numbers.dtype) for numbers in drawn} == {f"torch.{precision}"}
    (file,) = (options.output / "samples").iterdir()
    assert json.loads(file.read_text())["dtypes"] == [precision]


def test_texts_made_elsewhere_are_scored_like_any_other(options, tmp_path):
    run_genppl(change(options, steps=[2], seeds=[0]), ALONE)
    (drawn,) = results(options)
    (file,) = (options.output / "samples").iterdir()
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(
        json.dumps({"generated_seqs": json.loads(file.read_text())["generated_seqs"]})
    )
    tokenizer = str(ASSETS / "tokenizer")
    run_genppl(change(options, checkpoints=[], samples=[elsewhere], tokenizer=tokenizer), ALONE)
    (adopted,) = results(options)
    assert adopted["model"] == str(elsewhere)
    assert adopted["sampler"] is None
    assert adopted["gen_ppl"] == pytest.approx(drawn["gen_ppl"], rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoints": []}, "--checkpoint, --samples: name at least one"),
        ({"steps": [0]}, "--steps: must be at least 1, got 0"),
        ({"num_samples": 0}, "--num-samples: must be at least 1"),
        ({"batch": 0}, "--batch-size: must be at least 1"),
        ({"length": 0}, "--length: must be at least 1"),
        ({"temperatures": [1.0, 0.0]}, "--temperature: must be above 0, got 0"),
        ({"nuclei": [1.5]}, r"--nucleus: must be in \(0, 1\], got 1.5"),
        ({"samplers": ["euler"], "precisions": ["float32"]}, "--precision: euler draws in float64"),
        ({"checkpoints": ["nowhere"]}, "--checkpoint: no such file or folder: nowhere"),
        ({"judges": ["nowhere"]}, "--judge: no such file or folder: nowhere"),
        ({"tokenizer": "nowhere"}, "--tokenizer: no such file or folder: nowhere"),
        ({"samples": [Path("nowhere.json")]}, "nowhere.json: not readable as JSON"),
        ({"process": "sedd"}, "--process: 'sedd', but .* was trained with 'mdlm'"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_in_one_line(changes, words, options):
    with pytest.raises(UserError, match=words) as error:
        run_genppl(change(options, **changes), ALONE)
    assert "\n" not in str(error.value)


def test_every_setting_that_samples_depend_on_makes_another_cell(tmp_path):
    cell = Cell(
        model="a/student/",
        source="x",
        family="mdlm",
        sampler="ancestral",
        steps=8,
        precision="float64",
        temperature=1.0,
        nucleus=1.0,
        seed=0,
        num_samples=4,
        length=16,
        tokenizer="t",
    )
    # The name of files that users have.
    assert cell.key == "student-ancestral-8-float64-s0-b32a8e006fbb"
    changes = asdict(cell) | {
        "source": "y",
        "family": "sedd",
        "sampler": "euler",
        "steps": 9,
        "latent": 64,
        "precision": "float32",
        "temperature": 0.9,
        "nucleus": 0.9,
        "seed": 1,
        "num_samples": 5,
        "length": 17,
        "tokenizer": "u",
    }
    # The weights are told by their source, however they came about.
    del changes["model"], changes["relaxation"]
    others = {replace(cell, **{k: v}).key for k, v in changes.items()}
    assert len(others | {cell.key}) == 1 + len(changes)
    assert replace(cell, model="b/student", relaxation="word").key == cell.key


def test_only_duo_tells_a_relaxation():
    word = ProcessSection(name="duo", relaxation="word")
    assert relaxation_of(word) == "word"
    assert [relaxation_of(ProcessSection(name=name)) for name in ("mdlm", "udlm")] == [None] * 2


def test_a_damaged_cell_is_named(options):
    run_genppl(change(options, steps=[2], seeds=[0]), ALONE)
    (file,) = (options.output / "samples").iterdir()
    file.write_text(json.dumps({"cell": {}}))
    with pytest.raises(UserError, match="damaged .* delete it to draw it again"):
        run_genppl(change(options, steps=[2], seeds=[0]), ALONE)


def test_texts_of_nothing_but_eos_have_no_perplexity_and_break_nothing(options, tmp_path):
    tokenizer = Tokenizer(ASSETS / "tokenizer")
    eos = tokenizer.decode([[tokenizer.eos_id] * 16] * 3)
    (tmp_path / "eos.json").write_text(json.dumps({"generated_seqs": eos}))
    alone = change(options, checkpoints=[], samples=[tmp_path / "eos.json"])
    run_genppl(change(alone, tokenizer=str(ASSETS / "tokenizer")), ALONE)
    (row,) = results(options)
    assert (row["gen_ppl"], row["gen_ppl_se"], row["entropy"]) == (None, None, 0.0)


def test_both_rules_of_what_is_scored_make_a_row_each(options, tmp_path):
    tokenizer = Tokenizer(ASSETS / "tokenizer")
    (end,) = tokenizer.decode([[tokenizer.eos_id]])
    texts = [f"The people {end} of the States", f"Fellow citizens {end} of the Senate"]
    (tmp_path / "ended.json").write_text(json.dumps({"generated_seqs": texts}))
    alone = change(options, checkpoints=[], samples=[tmp_path / "ended.json"])
    both = change(alone, maskings=["published", "strict"], tokenizer="assets:tokenizer")
    run_genppl(both, ALONE)
    published, strict = results(options)
    assert (published["masking"], strict["masking"]) == ("published", "strict")
    counts = {
        path.name: sum(json.loads(path.read_text())["tokens"])
        for path in (options.output / "scores").iterdir()
    }
    assert len(counts) == 2
    (less,) = (count for name, count in counts.items() if ".strict." in name)
    assert less < max(counts.values())
