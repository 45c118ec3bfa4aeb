"""A sweep of two models, with real text and a control beside them."""

import csv
from dataclasses import replace

import pytest

from idlm_ds.errors import UserError
from idlm_ds.evaluation.frontier import CONTROL, REAL, FrontierOptions, run_frontier
from tests.evaluation.test_genppl import ALONE, models, options

__all__ = ["models", "options"]


@pytest.fixture
def sweep(options) -> FrontierOptions:
    (spec,) = options.checkpoints
    samples = replace(options, temperatures=[0.5, 1.0], seeds=[0], num_samples=6)
    return FrontierOptions(
        teacher=spec,
        student=spec + "/",
        teacher_steps=[2, 3],
        student_steps=[2],
        corpus="assets:sotu",
        heldout_every=20,
        periods=[1, 4],
        samples=samples,
    )


def test_every_point_of_the_sweep_is_in_the_table_and_the_picture_is_drawn(sweep):
    run_frontier(sweep, ALONE)
    folder = sweep.samples.output
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


def test_steps_below_one_are_refused(sweep):
    with pytest.raises(UserError, match="--teacher-steps: must be at least 1, got 0"):
        replace(sweep, teacher_steps=[0])
