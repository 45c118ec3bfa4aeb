"""A sweep of two models, with real text and a control beside them."""

import csv

import pytest

from idlm_ds.errors import UserError
from idlm_ds.evaluation import frontier
from idlm_ds.evaluation.frontier import CONTROL, REAL, run_frontier
from idlm_ds.evaluation.options import FrontierOptions
from tests.evaluation.changes import change
from tests.evaluation.test_genppl import ALONE, models, options

__all__ = ["models", "options"]


@pytest.fixture
def sweep(options) -> FrontierOptions:
    (spec,) = options.checkpoints
    return FrontierOptions(
        teacher=spec,
        student=spec + "/",
        teacher_steps=[2, 3],
        student_steps=[2],
        temperatures=[0.5, 1.0],
        periods=[1, 4],
        num_samples=6,
        batch=options.batch,
        judging=options.judging,
        output=options.output,
    )


def test_every_point_of_the_sweep_is_in_the_table_and_the_picture_is_drawn(sweep):
    run_frontier(sweep, ALONE)
    folder = sweep.output
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    points = [(row["model"], row["steps"], row["temperature"]) for row in rows]
    spec = sweep.teacher
    models = [(spec, "2"), (spec, "3"), (spec + "/", "2")]
    assert points[:6] == [(*model, t) for model in models for t in ("0.5", "1.0")]
    names = [REAL, f"{CONTROL} every 1 tokens", f"{CONTROL} every 4 tokens"]
    assert [name for name, *_ in points[6:]] == names
    assert (folder / "frontier.png").stat().st_size > 10_000
    assert "frontier.png" in (folder / "frontier.md").read_text()
    repeated = float(rows[7]["entropy"])
    assert repeated == 0.0, "one token over and over has no entropy"


def test_a_rule_of_what_is_scored_has_a_panel_of_its_own(sweep, monkeypatch):
    drawn = []
    monkeypatch.setattr(frontier, "draw_sweep", lambda panels, path: drawn.append(panels))
    run_frontier(change(sweep, maskings=["published", "strict"], teacher_steps=[2]), ALONE)
    (panels,) = drawn
    judge, strict = panels
    assert strict == f"{judge}.strict"
    for curves in panels.values():
        assert [(curve.kind, curve.name) for curve in curves] == [
            ("teacher", "teacher, 2 steps"),
            ("student", "student, 2 steps"),
            ("real text", REAL),
            ("control", CONTROL),
        ]
        for curve in curves:
            entropies = [point.entropy for point in curve.points]
            assert entropies == sorted(entropies)


def test_steps_below_one_are_refused(sweep):
    with pytest.raises(UserError, match="--teacher-steps: must be at least 1, got 0"):
        change(sweep, teacher_steps=[0])
