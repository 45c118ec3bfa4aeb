"""A run that a hook ends early saves what there is and says why; a whole one goes on."""

from types import SimpleNamespace

import pytest
import torch

from idlm_ds.kernels import dispatch
from idlm_ds.runs.session import Session, run_to_end
from idlm_ds.train.hooks import checkpointing
from idlm_ds.train.hooks.checkpointing import Checkpointer
from tests.train.test_loop import Seen, loader
from tests.train.toy import LENGTH, program_of


@pytest.fixture
def saved(monkeypatch) -> list[int]:
    """Steps of the checkpoints that would have been written."""
    steps: list[int] = []
    monkeypatch.setattr(
        checkpointing, "save_checkpoint", lambda root, step, *args, **more: steps.append(step)
    )
    return steps


def run(hook: Seen, *, every: int) -> bool:
    program = program_of("idlm")
    saver = Checkpointer(None, program, {}, every=every, keep=1, stop=8, world=None)
    recipe = SimpleNamespace(
        log=SimpleNamespace(every=1),
        train=SimpleNamespace(precision="fp32"),
        data=SimpleNamespace(length=LENGTH),
    )
    world = SimpleNamespace(is_first=True, size=1, device=torch.device("cpu"))
    session = SimpleNamespace(recipe=recipe, world=world)
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


@pytest.mark.parametrize("is_first", [True, False])
def test_the_form_of_operators_is_said_once(is_first, monkeypatch, capsys):
    monkeypatch.setattr(dispatch, "_choice", "auto")
    recipe = SimpleNamespace(train=SimpleNamespace(kernels="reference"))
    world = SimpleNamespace(is_first=is_first, device=torch.device("cpu"))
    Session(recipe, None, world).choose_kernels()
    assert capsys.readouterr().out == ("kernels: reference\n" if is_first else "")
