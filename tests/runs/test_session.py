"""A run that a hook ends early saves what there is and says why; a whole one goes on."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from idlm_ds.checkpoints import transaction
from idlm_ds.engine.dist import World
from idlm_ds.errors import Preempted, UserError
from idlm_ds.kernels import dispatch
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.runs.requeue import NOTE
from idlm_ds.runs.session import RunOptions, Session, leave_if_asked, run_to_end
from idlm_ds.train.hooks.checkpointing import Checkpointer, Watch
from idlm_ds.train.signals import loading_begins, training_begins, watched
from tests.train.test_loop import Seen, loader
from tests.train.test_preemption import Sends
from tests.train.toy import LENGTH, program_of


class Writer:
    """Notes the steps of the checkpoints that would have been written."""

    is_asynchronous = is_writing = has_failed = has_crashed = False

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.waits = 0

    def save(self, step: int, *args: object) -> None:
        self.steps.append(step)

    def wait(self) -> None:
        self.waits += 1

    def join(self, limit: float | None = None) -> None:
        pass


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def saved(writer) -> list[int]:
    """Steps of the checkpoints that would have been written."""
    return writer.steps


def run(hook: Seen, writer: Writer, *, every: int, output: Path | None = None) -> bool:
    program = program_of("idlm")
    watch = Watch(writer, minutes=0.0, world=None)
    saver = Checkpointer(writer, program, {}, every=every, stop=8, watch=watch)
    recipe = SimpleNamespace(
        log=SimpleNamespace(every=1),
        train=SimpleNamespace(precision="fp32"),
        data=SimpleNamespace(length=LENGTH),
    )
    cpu = torch.device("cpu")
    world = SimpleNamespace(is_first=True, size=1, device=cpu, barrier=lambda: None)
    session = SimpleNamespace(recipe=recipe, world=world, options=SimpleNamespace(output=output))
    return run_to_end(session, program, loader(), [hook], saver, start=0, stop=8)


def test_a_run_that_a_hook_ends_is_saved_where_it_ends(writer, saved, capsys):
    assert run(Seen(ends_at=4), writer, every=2) is False
    assert writer.waits == 1
    # The second student update is phase 4, counted from 1; the run ends after phase 5.
    assert saved == [4, 5]
    assert capsys.readouterr().out == "stopped: seen 4; continue with --resume auto\n"


def test_nothing_is_saved_twice_where_a_checkpoint_was_due_at_the_end(writer, saved):
    assert run(Seen(ends_at=3), writer, every=2) is False
    assert saved == [4]


def test_a_whole_run_saves_at_its_end_and_says_nothing(writer, saved, capsys):
    assert run(Seen(), writer, every=3) is True
    assert writer.waits == 1
    assert saved == [6, 8]
    assert capsys.readouterr().out == ""


def test_a_run_that_a_signal_ends_is_saved_and_leaves_a_note(writer, saved, tmp_path, capsys):
    with watched(75), pytest.raises(Preempted):
        run(Sends(), writer, every=99, output=tmp_path)
    assert saved == [3]
    assert capsys.readouterr().out == "stopped: SIGUSR1 received; continue with --resume auto\n"
    note = json.loads((tmp_path / NOTE).read_text())
    assert (note["start"], note["phase"], note["rows"]) == (0, 3, 0)


def test_a_signal_before_training_ends_the_run_before_its_first_phase(writer, saved, tmp_path):
    with watched(75):
        loading_begins()
        with pytest.raises(Preempted):
            os.kill(os.getpid(), signal.SIGTERM)
        seen = Seen()
        with pytest.raises(Preempted, match="before training began"):
            run(seen, writer, every=99, output=tmp_path)
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


class Alone(World):
    """A process group of one without a process group."""

    def agree(self, value: object) -> object:
        return value

    def gather(self, value: object) -> list[object]:
        return [value]


def resumed(run: Path, *overrides: str) -> tuple[Session, dict]:
    recipe = load_recipe(DistillRecipe, "quickstart", list(overrides))
    world = Alone(0, 1, 0, torch.device("cpu"))
    session = Session(recipe, RunOptions(output=run, resume="auto"), world)
    return session, session.state(SimpleNamespace(fingerprint="rows"), teacher="weights")


def write(run: Path, state: dict) -> Path:
    folder = transaction.begin(run / "checkpoints", 3)
    (folder / "loop.json").write_text(json.dumps(state))
    return transaction.commit(folder, {"loop.json": transaction.describe(folder / "loop.json")}, 3)


ADDED_LATER = {
    "objective.full_noise_fraction": ("0.25", "0.0, now 0.25"),
    "optim.betas": ("[0.5, 0.9]", "[0.9, 0.999], now [0.5, 0.9]"),
    "student.latent.size": ("8", "0, now 8"),
    "process.mask_id": ("3", "None, now 3"),
}
"""Keys of today's recipes that a checkpoint may lack: another value, and what is said of it."""


@pytest.mark.parametrize("key", ADDED_LATER)
def test_a_key_that_an_older_recipe_lacks_counts_as_its_default(key, tmp_path):
    session, state = resumed(tmp_path, "optim.betas=[0.9, 0.999]")
    assert state["recipe"].pop(key, None) is not None or key == "process.mask_id"
    folder = write(tmp_path, state)
    session, now = resumed(tmp_path, "optim.betas=[0.9, 0.999]")
    assert session.find_start(now) == folder
    value, said = ADDED_LATER[key]
    session, now = resumed(tmp_path, "optim.betas=[0.9, 0.999]", f"{key}={value}")
    with pytest.raises(UserError) as refused:
        session.find_start(now)
    assert str(refused.value) == f"--resume: {folder} was made with {key}={said}"


def test_a_key_without_a_default_must_be_in_the_checkpoint(tmp_path):
    session, state = resumed(tmp_path)
    lr = state["recipe"].pop("optim.lr")
    write(tmp_path, state)
    with pytest.raises(UserError, match=f"was made with optim.lr=None, now {lr}$"):
        session.find_start(resumed(tmp_path)[1])
