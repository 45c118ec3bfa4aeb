"""The baselines, run as users run them, and what they say when they cannot be."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from idlm_ds.build.locate import ASSETS
from idlm_ds.evaluation.table import value_with_error
from tests.launchers.conftest import ROOT, Finished, Toy, run
from tests.launchers.test_errors import ZERO3, distill, error_of

UPDATES = 3
TEACHER = "assets:teacher"


def distil(toy: Toy, output: Path, *more: str, config: str = "zero3.json") -> Finished:
    """A few updates of a student of the embedded teacher."""
    arguments = ["--config", str(ROOT / "ds_configs" / config), "--output", str(output)]
    overrides = [f"teacher.path={TEACHER}", f"train.student_steps={UPDATES}", "optim.lr=1e-3"]
    overrides += ["optim.warmup_steps=0", "train.micro_batch=8", "eval.steps=[2]"]
    return run("distill.py", [*arguments, *toy.overrides, *overrides, *more])


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """One run of each method, made when first asked for."""
    runs: dict[str, tuple[Path, Finished]] = {}

    def get(method: str) -> tuple[Path, Finished]:
        if method not in runs:
            output = tmp_path_factory.mktemp(method)
            more = ["objective.rounds=2", "objective.grid=8"] if method == "sdtt" else []
            done = distil(toy, output, f"objective.name={method}", *more)
            assert done.code == 0, done.err
            runs[method] = output, done
        return runs[method]

    return get


def lines(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def rows(output: Path) -> dict[tuple[str, int | None], dict]:
    report = json.loads((output / "report.json").read_text())
    return {(row["model"], row["steps"]): row for row in report["rows"]}


@pytest.mark.dist
@pytest.mark.parametrize("method", ["sdtt", "dmd"])
def test_a_baseline_prints_a_table_and_saves_a_student(method, made):
    output, done = made(method)
    shown = {("held-out", None), ("one real text repeated", None), ("student", 2), ("teacher", 2)}
    shown |= {("teacher (matched)", 2), ("teacher (matched in distinct-2)", 2)}
    assert rows(output).keys() == shown
    for row in rows(output).values():
        if row["gen_ppl"] is None:
            assert f"{row['model']} at 2 steps: no match: {row['not_matched']}" in done.out
            continue
        assert value_with_error(row["gen_ppl"], row["gen_ppl_se"]) in done.out
    judge = rows(output)["student", 2]["judge"]
    (shared,) = (line for line in done.out.splitlines() if line.startswith(f"judge {judge}, "))
    for setting in (
        "sampler ancestral",
        "precision float64",
        "seed 1234",
        "weights student at EMA",
    ):
        assert setting in shared
    card = json.loads((output / "student" / "config.json").read_text())
    assert card["origin"]["made_by"] == f"{method}, running-mean weights"
    assert card["origin"]["student_updates"] == UPDATES
    student = load_file(output / "student" / "model.safetensors")
    teacher = load_file(ASSETS / "teacher" / "model.safetensors")
    assert student.keys() == teacher.keys()
    assert any(not student[name].equal(teacher[name]) for name in teacher)


@pytest.mark.dist
def test_self_distillation_has_one_phase_and_a_divergence(made):
    output, done = made("sdtt")
    assert [(line["phase"], line["update"]) for line in lines(output)] == [
        ("student", 1),
        ("student", 2),
        ("student", 3),
    ]
    assert all(line["loss"] > 0 for line in lines(output))
    assert "divergence" in done.out


@pytest.mark.dist
def test_the_teacher_that_is_measured_is_the_original_one(made):
    """In the second round of this run the student's former self had taken its place."""
    baseline, other = rows(made("sdtt")[0]), rows(made("dmd")[0])
    assert baseline["teacher", 2]["gen_ppl"] == other["teacher", 2]["gen_ppl"]
    assert baseline["student", 2]["gen_ppl"] != other["student", 2]["gen_ppl"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            ["objective.name=dcd"],
            ["objective.name: dcd", "uniform families: udlm, duo", "process.name is mdlm"],
        ),
        (
            ["objective.name=sdtt", "objective.rounds=4", f"train.student_steps={UPDATES}"],
            ["objective.rounds: 4", "train.student_steps 3"],
        ),
        (["objective.name=sdtt", "objective.grid=7"], ["objective.grid", "rounds, 8, got 7"]),
        (["objective.name=sddt"], ["objective.name", "idlm, dmd, sdtt, dcd", "'sddt'"]),
        (
            ["eval.sampler=analytic", "eval.matched_steps=[8]"],
            ["eval.sampler", "ancestral", "matched_steps", "'analytic'"],
        ),
        (["process.name=sedd"], ["process.name: 'sedd'", "assets/teacher", "'mdlm'"]),
        (["process.name=duo"], ["process.name: 'duo'", "assets/teacher", "'mdlm'"]),
        (["process.schedule=cosine"], ["process.schedule: 'cosine'", "'loglinear'"]),
    ],
    ids=lambda v: " ".join(v) if isinstance(v[0], str) and "=" in v[0] else None,
)
def test_a_method_that_cannot_run_is_refused_in_one_line(
    more, words, toy, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    arguments = ["--config", ZERO3, *toy.overrides, f"teacher.path={TEACHER}", *more]
    err = error_of(distill, arguments, monkeypatch, capsys)
    for word in words:
        assert word in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs" / "quickstart" / "checkpoints").exists()


@pytest.mark.dist
def test_a_refused_method_ends_the_launcher_with_code_2(toy, tmp_path):
    done = distil(toy, tmp_path / "run", "objective.name=dcd")
    assert done.code == 2
    assert done.err.startswith("error: objective.name: dcd is defined for uniform families")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
