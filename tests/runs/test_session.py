"""A run that a hook ends early saves what there is and says why; a whole one goes on."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from idlm_ds.errors import Preempted
from idlm_ds.kernels import dispatch
from idlm_ds.runs.requeue import NOTE
from idlm_ds.runs.session import Session, leave_if_asked, run_to_end
from idlm_ds.train.hooks import checkpointing
from idlm_ds.train.hooks.checkpointing import Checkpointer
from idlm_ds.train.signals import loading_begins, training_begins, watched
from tests.train.test_loop import Seen, loader
from tests.train.test_preemption import Sends
from tests.train.toy import LENGTH, program_of


@pytest.fixture
def saved(monkeypatch) -> list[int]:
    """Steps of the checkpoints that would have been written."""
    steps: list[int] = []
    monkeypatch.setattr(
        checkpointing, "save_checkpoint", lambda root, step, *args, **more: steps.append(step)
    )
    return steps


def run(hook: Seen, *, every: int, output: Path | None = None) -> bool:
    program = program_of("idlm")
    saver = Checkpointer(None, program, {}, every=every, keep=1, stop=8, world=None)
    recipe = SimpleNamespace(
        log=SimpleNamespace(every=1),
        train=SimpleNamespace(precision="fp32"),
        data=SimpleNamespace(length=LENGTH),
    )
    cpu = torch.device("cpu")
    world = SimpleNamespace(is_first=True, size=1, device=cpu, barrier=lambda: None)
    session = SimpleNamespace(recipe=recipe, world=world, options=SimpleNamespace(output=output))
    return run_to_end(session, program, loader(), [hook], saver, start=0, stop=8)


def test_a_run_that_a_hook_ends_is_saved_where_it_ends(saved, capsys):
    assert run(Seen(ends_at=4), every=2) is False
    # The second student update is phase 4, counted from 1; the run ends after phase 5.
    assert saved == [4, 5]
    assert capsys.readouterr().out == "stopped: seen 4; continue with --resume auto\n"


def test_nothing_is_saved_twice_where_a_checkpoint_was_due_at_the_end(saved):
    assert run(Seen(ends_at=3), every=2) is False
    assert saved == [4]


def test_a_whole_run_saves_at_its_end_and_says_nothing(saved, capsys):
    assert run(Seen(), every=3) is True
    assert saved == [6, 8]
    assert capsys.readouterr().out == ""


def test_a_run_that_a_signal_ends_is_saved_and_leaves_a_note(saved, tmp_path, capsys):
    with watched(75), pytest.raises(Preempted):
        run(Sends(), every=99, output=tmp_path)
    assert saved == [3]
    assert capsys.readouterr().out == "stopped: SIGUSR1 received; continue with --resume auto\n"
    note = json.loads((tmp_path / NOTE).read_text())
    assert (note["start"], note["phase"], note["rows"]) == (0, 3, 0)


def test_a_signal_before_training_ends_the_run_before_its_first_phase(saved, tmp_path):
    with watched(75):
        loading_begins()
        with pytest.raises(Preempted):
            os.kill(os.getpid(), signal.SIGTERM)
        seen = Seen()
        with pytest.raises(Preempted, match="before training began"):
            run(seen, every=99, output=tmp_path)
    assert (seen.records, saved, list(tmp_path.iterdir())) == ([], [], [])


def test_a_report_is_left_between_its_rows(tmp_path, capsys):
    world = SimpleNamespace(is_first=True, size=1, barrier=lambda: None)
    session = SimpleNamespace(world=world, options=SimpleNamespace(output=tmp_path))
    with watched(75):
        training_begins()
        leave_if_asked(session, start=8, phase=8, rows=2)
        os.kill(os.getpid(), signal.SIGUSR2)
        with pytest.raises(Preempted):
            leave_if_asked(session, start=8, phase=8, rows=2)
    assert capsys.readouterr().out == "stopped: SIGUSR2 received; continue with --resume auto\n"
    assert json.loads((tmp_path / NOTE).read_text())["rows"] == 2


@pytest.mark.parametrize("is_first", [True, False])
def test_the_form_of_operators_is_said_once(is_first, monkeypatch, capsys):
    monkeypatch.setattr(dispatch, "_choice", "auto")
    recipe = SimpleNamespace(train=SimpleNamespace(kernels="reference"))
    world = SimpleNamespace(is_first=is_first, device=torch.device("cpu"))
    Session(recipe, None, world).choose_kernels()
    assert capsys.readouterr().out == ("kernels: reference\n" if is_first else "")
