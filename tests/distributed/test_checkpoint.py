"""A run that was stopped and resumed is the run that was not."""

import dataclasses
import threading
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from idlm_ds.checkpoints import transaction
from idlm_ds.checkpoints.retention import Retention
from idlm_ds.engine.checkpoint import (
    find_checkpoint,
    load_checkpoint,
    problem_with,
    save_checkpoint,
)
from idlm_ds.engine.dist import World
from idlm_ds.engine.saving import CheckpointWriter
from idlm_ds.errors import UserError
from idlm_ds.models.dit import DiTConfig
from idlm_ds.train.step import train_step

from . import toy
from .harness import run_ranks

pytestmark = pytest.mark.dist

PHASES = 6
BEFORE_ANY_STUDENT, MID_CYCLE = 1, 4
"""Steps at which runs are saved: two fake phases, then one of the student, make a cycle."""


def _distil(
    world: World,
    stage: int,
    precision: str = "fp32",
    *,
    dropout: float = 0.0,
    resume: Path | None = None,
    save_in: Path | None = None,
    save_at: tuple[int, ...] = (),
    stop: int = PHASES,
    is_adapted: bool = False,
    has_fake_mean: bool = True,
) -> dict[str, Any]:
    network = dataclasses.replace(toy.NETWORK, dropout=dropout)
    trainable = toy.is_adapted if is_adapted else lambda name: True
    program = toy.start_program(
        world,
        toy.engine_json(stage),
        precision=precision,
        network=network,
        trainable=trainable,
        has_fake_mean=has_fake_mean,
    )
    start = int(load_checkpoint(resume, program.learners)["step"]) if resume else 0
    losses = []
    for step, batch in enumerate(toy.make_loader(world).batches(start, stop), start=start):
        losses.append(train_step(program, step, batch, is_logged=True).loss)
        if step + 1 in save_at:
            assert save_in is not None
            save_checkpoint(save_in, step + 1, program.learners, {}, world=world, keep=9)
    return {"losses": losses, "state": toy.state_of(world, program.learners)}


def _save(world: World, root: Path, stage: int, precision: str) -> dict[str, Any]:
    steps = (BEFORE_ANY_STUDENT, MID_CYCLE)
    return _distil(world, stage, precision, dropout=0.2, save_in=root, save_at=steps)


def _resume(world: World, folder: Path, stage: int, precision: str) -> dict[str, Any]:
    return _distil(world, stage, precision, dropout=0.2, resume=folder)


def _do_not_stop(world: World, stage: int, precision: str) -> dict[str, Any]:
    return _distil(world, stage, precision, dropout=0.2)


@pytest.mark.parametrize(
    ("stage", "size", "precision"),
    [
        # In float32 the launchers' own kill and resume is in the default run.
        (3, 2, "bf16"),
        *[pytest.param(stage, 2, "fp32", marks=pytest.mark.slow) for stage in (1, 2, 3)],
        *[pytest.param(stage, 1, "fp32", marks=pytest.mark.slow) for stage in (1, 2, 3)],
        *[pytest.param(stage, 2, "bf16", marks=pytest.mark.slow) for stage in (1, 2)],
    ],
)
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(
    stage: int, size: int, precision: str, tmp_path: Path
):
    wanted = run_ranks(_do_not_stop, size, stage, precision)[0]
    saved = run_ranks(_save, size, tmp_path, stage, precision)[0]
    assert saved["losses"] == wanted["losses"]
    toy.assert_same(saved["state"], wanted["state"], "after saving")
    for step in (BEFORE_ANY_STUDENT, MID_CYCLE):
        resumed = run_ranks(_resume, size, tmp_path / f"step-{step}", stage, precision)[0]
        assert resumed["losses"] == wanted["losses"][step:]
        toy.assert_same(resumed["state"], wanted["state"], f"resumed at {step}")


def _save_one(world: World, root: Path, stage: int) -> dict[str, Any]:
    return _distil(world, stage, save_in=root, save_at=(MID_CYCLE,), stop=MID_CYCLE)


def _load(world: World, folder: Path, stage: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state as it was loaded, and that of the run which goes on from it."""
    loaded = _distil(world, stage, resume=folder, stop=MID_CYCLE)
    return loaded, _distil(world, stage, resume=folder)


@cache
def _uninterrupted_losses() -> list[float]:
    return run_ranks(_distil, 1, 1)[0]["losses"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ((3, 2), (1, 2)),
        ((1, 1), (3, 2)),
        pytest.param((3, 2), (3, 1), marks=pytest.mark.slow),
        pytest.param((2, 1), (2, 2), marks=pytest.mark.slow),
        pytest.param((1, 2), (2, 1), marks=pytest.mark.slow),
    ],
    ids=lambda case: "zero{}x{}".format(*case),
)
def test_another_stage_and_number_of_ranks_read_the_same_state(
    written: tuple[int, int], read: tuple[int, int], tmp_path: Path
):
    wanted = run_ranks(_save_one, written[1], tmp_path, written[0])[0]
    folder = tmp_path / f"step-{MID_CYCLE}"
    later = pytest.approx(_uninterrupted_losses()[MID_CYCLE:], rel=1e-5, abs=1e-5)
    for loaded, resumed in run_ranks(_load, read[1], folder, read[0]):
        toy.assert_same(loaded["state"], wanted["state"], "after loading")
        assert resumed["losses"] == later


def _save_adapted(world: World, root: Path, stage: int) -> dict[str, Any]:
    return _distil(world, stage, save_in=root, save_at=(MID_CYCLE,), is_adapted=True)


def _resume_adapted(world: World, folder: Path, stage: int) -> dict[str, Any]:
    return _distil(world, stage, resume=folder, is_adapted=True)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_role_that_learns_in_part_saves_and_resumes_that_part(stage: int, tmp_path: Path):
    whole = run_ranks(_save_adapted, 2, tmp_path, stage)[0]
    folder = tmp_path / f"step-{MID_CYCLE}"
    resumed = run_ranks(_resume_adapted, 2, folder, stage)[0]
    assert resumed["losses"] == whole["losses"][MID_CYCLE:]
    toy.assert_same(resumed["state"], whole["state"], "resumed")
    stored = {
        name for file in (folder / "student").glob("*.safetensors") for name in load_file(file)
    }
    assert stored == {
        f"{kind}:{name}"
        for kind in ("weight", "exp_avg", "exp_avg_sq", "ema")
        for name in toy.ADAPTED
    }


def _save_beside(world: World, root: Path, stage: int, precision: str) -> list[str]:
    """Save twice in every way, beside a phase of training; return what is at last on disk."""
    program = toy.start_program(world, toy.engine_json(stage), precision=precision)
    writer = CheckpointWriter(root / "beside", Retention(9), world=world, is_asynchronous=True)
    describe, may_end = transaction.describe, threading.Event()

    def held_up(path: Path) -> transaction.FileEntry:
        if root / "beside" in path.parents:
            assert may_end.wait(60)
        return describe(path)

    transaction.describe = held_up
    saves = (BEFORE_ANY_STUDENT, MID_CYCLE)
    for step, batch in enumerate(toy.make_loader(world).batches(0, PHASES)):
        train_step(program, step, batch)
        assert writer.is_writing == (step in saves)
        may_end.set()
        writer.wait()
        if step + 1 in saves:
            may_end.clear()
            writer.save(step + 1, program.learners, {})
            at_once = root / "at once"
            save_checkpoint(at_once, step + 1, program.learners, {}, world=world, keep=9)
    may_end.set()
    writer.wait()
    assert not writer.is_writing
    return sorted(p.name for p in (root / "beside").iterdir())


@pytest.mark.parametrize(
    ("stage", "precision"),
    [(3, "fp32"), *[pytest.param(s, "bf16", marks=pytest.mark.slow) for s in (1, 2, 3)]],
)
def test_what_is_written_beside_training_is_the_state_when_it_was_saved(
    stage: int, precision: str, tmp_path: Path
):
    steps = ["step-1", "step-4"]
    assert run_ranks(_save_beside, 2, tmp_path, stage, precision) == [steps] * 2
    for step in steps:
        assert transaction.problem_with(tmp_path / "beside" / step) is None
        for path in (tmp_path / "at once" / step).rglob("*.safetensors"):
            relative = path.relative_to(tmp_path / "at once")
            toy.assert_same(load_file(tmp_path / "beside" / relative), load_file(path), str(path))


def _change_mean(world: World, root: Path) -> list[dict[str, Any]]:
    """A run that keeps the fake's mean, one that does not, and each resumed as the other."""
    with_it, without = root / "with", root / "without"
    at, folder = (MID_CYCLE,), f"step-{MID_CYCLE}"
    return [
        _distil(world, 3, save_in=with_it, save_at=at),
        _distil(world, 3, save_in=without, save_at=at, has_fake_mean=False),
        _distil(world, 3, resume=with_it / folder, has_fake_mean=False),
        _distil(world, 3, resume=without / folder),
        _distil(world, 3, resume=without / folder, stop=MID_CYCLE),
    ]


def test_a_run_is_the_same_with_a_mean_of_the_fake_without_it_and_with_a_change(tmp_path: Path):
    whole, without, dropped, added, loaded = run_ranks(_change_mean, 2, tmp_path)[0]
    assert without["losses"] == whole["losses"]
    assert dropped["losses"] == added["losses"] == whole["losses"][MID_CYCLE:]
    rest = {k: v for k, v in whole["state"].items() if not k.startswith("fake/ema/")}
    assert len(rest) < len(whole["state"])
    toy.assert_same(without["state"], rest, "without")
    toy.assert_same(dropped["state"], rest, "dropped")
    toy.assert_same({k: added["state"][k] for k in rest}, rest, "added")
    # A mean that is new starts at the weights.
    for name, weight in loaded["state"].items():
        if name.startswith("fake/weight/"):
            assert loaded["state"][name.replace("weight", "ema", 1)].equal(weight)
    for run, kinds in (("with", 4), ("without", 3)):
        stored = load_file(tmp_path / run / f"step-{MID_CYCLE}" / "fake" / "rank-00000.safetensors")
        assert len({key.partition(":")[0] for key in stored}) == kinds


def _save_three(world: World, root: Path) -> None:
    _distil(world, 1, save_in=root, save_at=(1, 2, 3), stop=3)


def _find(world: World, root: Path) -> tuple[str | None, list[str]]:
    found, problems = find_checkpoint(root, world=world)
    return (found.name if found else None), problems


def test_damaged_checkpoints_are_skipped_and_named_on_every_rank(tmp_path: Path):
    run_ranks(_save_three, 2, tmp_path)
    assert run_ranks(_find, 2, tmp_path) == [("step-3", [])] * 2
    flipped = tmp_path / "step-3" / "fake" / "rank-00001.safetensors"
    data = bytearray(flipped.read_bytes())
    data[-5] ^= 1
    flipped.write_bytes(data)
    (tmp_path / "step-2" / "student" / "rank-00000.safetensors").unlink()
    for found, problems in run_ranks(_find, 2, tmp_path):
        assert found == "step-1"
        assert len(problems) == 2
        assert problems[0].endswith(
            "step-3: fake/rank-00001.safetensors does not match its SHA-256"
        )
        assert problems[1].endswith("step-2: student/rank-00000.safetensors is missing")


def _hashed(world: World, folder: Path) -> tuple[list[str], str | None]:
    """Files that this rank reads to verify a checkpoint, and the verdict."""
    names: list[str] = []

    def count(path: Path, hash_file=transaction._hash) -> str:
        names.append(str(path.relative_to(folder)))
        return hash_file(path)

    transaction._hash = count
    problem = problem_with(folder, world=world)
    return sorted(names), problem


def test_ranks_verify_what_they_will_read_and_together_every_file_once(tmp_path: Path):
    run_ranks(_save_three, 2, tmp_path)
    folder = tmp_path / "step-3"
    parts = [
        f"{role}/rank-0000{rank}.safetensors" for rank in (0, 1) for role in ("fake", "student")
    ]
    assert run_ranks(_hashed, 2, folder) == [
        ([parts[0], "loop.json", parts[1]], None),
        (parts[2:], None),
    ]
    (folder / "loop.json").write_text((folder / "loop.json").read_text().replace("3", "4"))
    problem = f"{folder}: loop.json does not match its SHA-256"
    answers = run_ranks(_hashed, 3, folder)
    assert sorted(name for names, _ in answers for name in names) == sorted([*parts, "loop.json"])
    assert all(names and verdict == problem for names, verdict in answers)


def _save_again(world: World, root: Path, step: int, keep: int) -> list[str]:
    program = toy.start_program(world, toy.engine_json(1))
    for earlier in (1, 2, 3):
        save_checkpoint(root, earlier, program.learners, {}, world=world, keep=9)
    if world.is_first:
        (root / ".tmp-step-7").mkdir()
        (root / ".tmp-step-7" / "half").write_text("written")
    world.barrier()
    path = save_checkpoint(root, step, program.learners, {}, world=world, keep=keep)
    assert transaction.problem_with(path) is None
    return sorted(p.name for p in root.iterdir())


def test_a_save_removes_leftovers_and_all_but_the_newest(tmp_path: Path):
    assert run_ranks(_save_again, 2, tmp_path, 4, 2)[0] == ["step-3", "step-4"]


def test_a_save_never_deletes_itself_though_later_steps_exist(tmp_path: Path):
    # As after --resume auto has skipped a damaged step 3, or --resume has named step 1.
    assert "step-2" in run_ranks(_save_again, 1, tmp_path, 2, 1)[0]


def _load_as(world: World, folder: Path, network: DiTConfig, roles: tuple[str, ...]) -> str:
    program = toy.start_program(world, toy.engine_json(1), network=network)
    with pytest.raises(UserError) as error:
        load_checkpoint(folder, {name: program.learners[name] for name in roles})
    return str(error.value)


@pytest.mark.parametrize("change", [{"hidden": 8}, {"blocks": 1}, {"blocks": 3}], ids=str)
def test_a_checkpoint_of_another_network_is_refused_in_one_line_on_every_rank(
    change: dict[str, int], tmp_path: Path
):
    run_ranks(_save_one, 2, tmp_path, 1)
    network = dataclasses.replace(toy.NETWORK, **change)
    folder = tmp_path / f"step-{MID_CYCLE}"
    for message in run_ranks(_load_as, 2, folder, network, ("fake", "student"), timeout_s=30.0):
        assert str(folder) in message
        assert "\n" not in message


def test_a_checkpoint_of_other_roles_is_refused(tmp_path: Path):
    run_ranks(_save_one, 1, tmp_path, 1)
    folder = tmp_path / f"step-{MID_CYCLE}"
    (message,) = run_ranks(_load_as, 1, folder, toy.NETWORK, ("student",))
    assert message == f"{folder}: holds ['fake', 'student'], this run has ['student']"
