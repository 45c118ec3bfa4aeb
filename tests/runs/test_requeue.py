"""A job is started again after it made room and had advanced, and not otherwise."""

import json

import pytest

from idlm_ds.runs.requeue import NOTE, why_not_again, write_note


@pytest.fixture
def of_job(monkeypatch):
    def of_job(number: str | None, restarts: int = 0) -> None:
        for name, value in (("SLURM_JOB_ID", number), ("SLURM_RESTART_COUNT", restarts or None)):
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, str(value))

    of_job("17")
    return of_job


@pytest.fixture
def run(tmp_path):
    for step in (30, 40):
        (tmp_path / "checkpoints" / f"step-{step}").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("code", [75, 143, 137, 1])
def test_a_run_that_made_room_and_advanced_goes_on(code, run, of_job):
    write_note(run, start=30, phase=40, rows=0)
    assert why_not_again(run, code) is None


def test_rows_of_the_report_are_an_advance_too(run, of_job):
    write_note(run, start=40, phase=40, rows=1)
    assert why_not_again(run, 75) is None


@pytest.mark.parametrize("code", [75, 6])
def test_a_run_that_left_no_note_does_not(code, run, of_job):
    reason = f"exit code {code}, and no phase was saved for a signal since its last start"
    assert why_not_again(run, code) == reason
    assert why_not_again(run / "nowhere", code) == reason


@pytest.mark.parametrize(("job", "restarts"), [("18", 0), ("17", 1), (None, 0)])
def test_the_note_of_an_earlier_start_does_not_count(job, restarts, run, of_job):
    write_note(run, start=30, phase=40, rows=0)
    of_job(job, restarts)
    assert "exit code 75, and no phase was saved" in why_not_again(run, 75)


def test_a_run_that_stands_where_it_started_does_not(run, of_job):
    write_note(run, start=40, phase=40, rows=0)
    assert why_not_again(run, 75) == "it did not advance from phase 40 since its last start"


def test_a_note_without_its_checkpoint_does_not_count(run, of_job):
    write_note(run, start=40, phase=50, rows=0)
    assert why_not_again(run, 75) == f"{run}: there is no checkpoint of phase 50"


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"job": "17"}'])
def test_a_damaged_note_does_not_count(text, run, of_job):
    (run / NOTE).write_text(text)
    assert "no phase was saved" in why_not_again(run, 75)


@pytest.mark.parametrize("value", [None, "40", -1])
def test_a_note_with_nonsense_in_it_does_not_count(value, run, of_job):
    write_note(run, start=30, phase=40, rows=0)
    note = json.loads((run / NOTE).read_text())
    (run / NOTE).write_text(json.dumps(note | {"phase": value}))
    assert why_not_again(run, 75) == f"{run}: there is no checkpoint of phase {value}"
