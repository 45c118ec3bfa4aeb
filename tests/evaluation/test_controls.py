"""The end of a run, whose student is the embedded teacher itself."""

import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from idlm_ds.build.judges import load_judge
from idlm_ds.build.locate import ASSETS
from idlm_ds.build.saved_model import open_model
from idlm_ds.data.corpus import read_corpus
from idlm_ds.data.windows import in_order, pack
from idlm_ds.evaluation import controls
from idlm_ds.evaluation.controls import Measured, RunEvaluation
from idlm_ds.evaluation.kept import KeptSets
from idlm_ds.evaluation.report import report
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe
from tests.evaluation.test_genppl import ALONE

SAMPLES, LENGTH = 48, 32
OVERRIDES = [
    f"data.length={LENGTH}",
    f"eval.num_samples={SAMPLES}",
    "eval.steps=[2, 4]",
    "eval.teacher_steps=[]",
    "eval.matched_steps=[4]",
    f"eval.batch={SAMPLES}",
    "eval.seed=5",
]


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory) -> tuple[RunEvaluation, list]:
    """An evaluation and the arguments of ``measure``."""
    folder = tmp_path_factory.mktemp("kept")
    recipe = ASSETS.parents[1] / "ds_configs" / "recipes" / "quickstart.yaml"
    opened = open_model(str(ASSETS / "teacher"), length=LENGTH)
    heldout = in_order(
        pack(read_corpus(ASSETS / "sotu.jsonl.xz")[:8], opened.tokenizer), LENGTH, 48
    )
    network = opened.load(ALONE.device)
    network = SimpleNamespace(module=network, ema=SimpleNamespace(in_place=nullcontext))
    built = RunEvaluation(
        recipe=load_recipe(DistillRecipe, recipe, OVERRIDES),
        process=opened.process,
        tokenizer=opened.tokenizer,
        judge=load_judge(str(ASSETS / "judge"), ALONE.device),
        judge_print="the embedded one",
        weights={"student": "s", "teacher": "t"},
        kept=KeptSets(folder, {}, ALONE),
        world=ALONE,
    )
    return built, [network, network, heldout]


@pytest.fixture(scope="module")
def measured(evaluation) -> dict[tuple[str, int | None], Measured]:
    built, (student, teacher, heldout) = evaluation
    found = list(built.measure(student, teacher, torch.from_numpy(heldout)))
    return {(each.row["model"], each.row["steps"]): each for each in found}


def test_rows_come_in_the_order_of_the_table(measured):
    assert list(measured) == [
        ("held-out", None),
        ("one real text repeated", None),
        ("student", 2),
        ("student", 4),
        ("teacher (matched)", 4),
        ("teacher (matched in distinct-2)", 4),
    ]


def test_a_repeated_text_is_found_out_by_the_diversity_of_the_set_alone(measured):
    real, repeated = measured["held-out", None].row, measured["one real text repeated", None].row
    assert repeated["gen_ppl"] == pytest.approx(real["gen_ppl"], rel=0.05)
    assert repeated["entropy"] == pytest.approx(real["entropy"], abs=0.3)
    assert repeated["distinct_2"] <= 1 / SAMPLES
    assert repeated["self_bleu"] == pytest.approx(1.0)
    assert len(set(measured["one real text repeated", None].texts)) == 1


@pytest.mark.parametrize("name", ["teacher (matched)", "teacher (matched in distinct-2)"])
def test_a_student_that_is_its_teacher_is_level_with_it(measured, name):
    student, row = measured["student", 4].row, measured[name, 4].row
    assert row["verdict"] == "level"
    difference = student["gen_ppl"] - row["gen_ppl"]
    assert row["student_minus_matched"] == pytest.approx(difference)
    assert row["gen_ppl_slope"] > 0
    # Two sets of equal size, one of which also has to be met by the other.
    assert row["student_minus_matched_se"] > student["gen_ppl_se"]


def test_a_matched_row_keeps_the_figures_of_its_own_set(measured):
    each = measured["teacher (matched)", 4]
    assert each.row["entropy"] != measured["student", 4].row["entropy"]
    assert each.gen_ppl == each.row["gen_ppl_of_set"] != each.row["gen_ppl"]
    assert each.row["gen_ppl_of_set_se"] < each.row["gen_ppl_se"]
    assert each.row["temperature"] in each.row["temperatures_tried"]


def test_a_second_try_draws_and_scores_nothing_and_has_the_same_rows(
    evaluation, measured, monkeypatch
):
    built, (student, teacher, heldout) = evaluation
    for name in ("draw_cell", "score_set"):
        monkeypatch.setattr(controls, name, lambda *_, **__: pytest.fail("done again"))
    again = list(built.measure(student, teacher, torch.from_numpy(heldout)))
    assert [each.row for each in again] == [each.row for each in measured.values()]
    assert [list(each.texts) for each in again] == [list(e.texts) for e in measured.values()]


def test_another_student_is_drawn_again_and_its_teacher_is_not(evaluation, measured, monkeypatch):
    built, (student, teacher, heldout) = evaluation
    drawn, draw = [], controls.draw_cell
    monkeypatch.setattr(
        controls, "draw_cell", lambda cell, *a, **k: drawn.append(cell.model) or draw(cell, *a, **k)
    )
    other = replace(built, weights={**built.weights, "student": "another"})
    rows = [each.row for each in other.measure(student, teacher, torch.from_numpy(heldout))]
    assert drawn == ["student", "student"]
    sources = {row["model"]: row["source"] for row in rows}
    assert (sources["student"], sources["teacher (matched)"]) == ("another", "t")


def test_the_report_has_them_all(evaluation, tmp_path, capsys):
    built, arguments = evaluation
    report(built, tmp_path, *arguments)
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "student-2.json",
        "student-4.json",
        "teacher_matched-4.json",
        "teacher_matched_distinct_2-4.json",
    ]
    samples = json.loads((tmp_path / "samples" / "teacher_matched-4.json").read_text())
    assert samples["generative_ppl"] == rows[4]["gen_ppl_of_set"]
    out = capsys.readouterr().out
    table = [line for line in out.splitlines() if line.startswith("teacher (matched")]
    assert len(table) == 2
    assert max(map(len, table)) <= 124
    assert out.count("the student is level") == 2
