"""The folder of a run: begun anew, and found again by a job that its scheduler restarted."""

import os
from pathlib import Path

import pytest

from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.runs.measurement import KEPT
from idlm_ds.runs.output import FOLDERS, job_began, prepare_output
from idlm_ds.runs.requeue import NOTE
from idlm_ds.runs.session import RunOptions


@pytest.fixture
def job(monkeypatch):
    def job(number: str, restarts: int) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", number)
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))

    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    return job


@pytest.fixture
def output(job, tmp_path):
    """The folder of a run that job 17 started."""
    recipe = load_recipe(DistillRecipe, "quickstart", [])
    prepare_output(tmp_path / "run", recipe, world=1, resume=False, fresh=False)
    return tmp_path / "run"


def save(output) -> None:
    (output / "checkpoints" / "step-2").mkdir(parents=True)


@pytest.mark.parametrize("resume", [None, "auto", "elsewhere/checkpoints/step-8"])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_restarted_job_continues_what_it_saved(resume, fresh, output, job):
    save(output)
    job("17", 1)
    options = RunOptions(output=output, resume=resume, fresh=fresh).after_restart()
    assert options == RunOptions(output=output, resume="auto", fresh=False)


@pytest.mark.parametrize(("resume", "then"), [(None, "auto"), ("auto", "auto"), ("a/b", "a/b")])
def test_a_restarted_job_that_had_saved_nothing_begins_where_it_began(resume, then, output, job):
    job("17", 1)
    options = RunOptions(output=output, resume=resume, fresh=True).after_restart()
    assert options == RunOptions(output=output, resume=then, fresh=False)


def test_a_restarted_job_takes_no_checkpoint_from_before_it_began(output, job):
    save(output)
    options = RunOptions(output=output, resume="a/step-1")
    for restarts in (1, 2):
        began = job_began(output)
        os.utime(output / "checkpoints" / "step-2", (began - 60, began - 60))
        job("17", restarts)
        assert options.after_restart() == options
        again = load_recipe(DistillRecipe, "quickstart", [])
        prepare_output(output, again, world=1, resume=True, fresh=False)
        assert job_began(output) == began
    os.utime(output / "checkpoints" / "step-2", (began + 60, began + 60))
    assert options.after_restart().resume == "auto"


@pytest.mark.parametrize(("number", "restarts"), [("17", 0), ("18", 0), ("18", 1)])
def test_a_first_start_and_another_job_do_what_they_are_told(number, restarts, output, job):
    save(output)
    job(number, restarts)
    options = RunOptions(output=output, resume=None, fresh=True)
    assert options.after_restart() == options


def test_a_job_that_was_stopped_before_it_wrote_anything_starts_as_it_was_told(tmp_path, job):
    job("17", 1)
    options = RunOptions(output=tmp_path / "new", resume=None, fresh=True)
    assert options.after_restart() == options


def test_without_a_batch_system_nothing_changes(output, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID")
    options = RunOptions(output=output, resume=None, fresh=True)
    assert options.after_restart() == options


def test_a_new_start_removes_the_note_of_the_last(output, job):
    (output / NOTE).write_text("{}")
    recipe = load_recipe(DistillRecipe, "quickstart", [])
    prepare_output(output, recipe, world=1, resume=True, fresh=False)
    assert not (output / NOTE).exists()


def test_a_run_begun_anew_has_no_sets_of_an_earlier_one_and_what_is_not_its_own_stays(
    tmp_path: Path,
):
    assert KEPT in FOLDERS
    for name in (*FOLDERS, "mine"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "file").touch()
    recipe = load_recipe(DistillRecipe, "quickstart")
    prepare_output(tmp_path, recipe, world=1, resume=False, fresh=True)
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "recipe.yaml", "run.json"}
    assert (tmp_path / "mine" / "inner" / "file").exists()
