"""Checkpoints stay by number and by time, and only a run's own ever go."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from idlm_ds.checkpoints import transaction
from idlm_ds.checkpoints.retention import HOUR, Owner, Retention, prune

STATE = {"recipe": {"seed": 1, "optim.betas": [0.9, 0.99]}, "inputs": {"data": "rows"}}


def write(root: Path, step: int, **fields: Any) -> Path:
    folder = transaction.begin(root, step)
    (folder / "student").mkdir()
    files = {
        "loop.json": json.dumps({**STATE, "time": step * HOUR, **fields}),
        "student/rank-00000.safetensors": "weights",
    }
    entries = {}
    for name, content in files.items():
        (folder / name).write_text(content)
        entries[name] = transaction.describe(folder / name)
    return transaction.commit(folder, entries, step, may_replace=Owner(STATE).made)


def kept(root: Path, newest: int, *rule: float) -> list[str]:
    owner = Owner(STATE, STATE["recipe"].get)
    prune(root, Retention(*(rule or (1,))), owner, newest=newest)
    return sorted((p.name for p in root.iterdir()), key=lambda n: (len(n), n))


@pytest.mark.parametrize(
    ("newest", "every_hours", "stays"),
    [
        (1, 0.0, [9]),
        (3, 0.0, [7, 8, 9]),
        (20, 0.0, list(range(10))),
        (1, 4.0, [0, 4, 8, 9]),
        (2, 2.5, [0, 3, 6, 8, 9]),
        (1, 0.5, list(range(10))),
        (1, 100.0, [0, 9]),
    ],
)
def test_the_newest_stay_and_one_for_every_so_many_hours(newest, every_hours, stays):
    retention = Retention(newest, every_hours)
    hourly = {step: 1e9 + HOUR * step for step in range(10)}
    assert [step for step in hourly if step not in retention.expired(hourly)] == stays
    # The same as when each is pruned as it comes, which is what runs do.
    left: dict[int, float] = {}
    for step, time in hourly.items():
        left[step] = time
        for gone in retention.expired(left):
            del left[gone]
    assert list(left) == stays


def test_a_run_keeps_by_the_time_its_checkpoints_note(tmp_path: Path):
    for step in range(1, 8):
        write(tmp_path, step)
    assert kept(tmp_path, 7, 2, 3.0) == ["step-1", "step-4", "step-6", "step-7"]


@pytest.mark.parametrize("time", [None, "noon"])
def test_a_checkpoint_that_notes_no_time_is_as_old_as_its_file(time, tmp_path: Path):
    for step in range(1, 6):
        state = write(tmp_path, step, time=time) / "loop.json"
        os.utime(state, (HOUR * step, HOUR * step))
    assert kept(tmp_path, 5, 1, 2.0) == ["step-1", "step-3", "step-5"]


def note(folder: Path) -> None:
    (folder / "notes.txt").write_text("the best one")


def another_recipe(folder: Path) -> None:
    write(folder.parent, 3, recipe={**STATE["recipe"], "seed": 2})


def other_data(folder: Path) -> None:
    write(folder.parent, 3, inputs={"data": "other"})


def no_run(folder: Path) -> None:
    transaction.discard(folder)
    begun = transaction.begin(folder.parent, 3)
    (begun / "loop.json").write_text("{}")
    entries = {"loop.json": transaction.describe(begun / "loop.json")}
    transaction.commit(begun, entries, 3)


def no_manifest(folder: Path) -> None:
    (folder / transaction.MANIFEST).unlink()


def torn_manifest(folder: Path) -> None:
    (folder / transaction.MANIFEST).write_text("{")


def link(folder: Path) -> None:
    elsewhere = folder.parents[1] / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def no_folder(folder: Path) -> None:
    transaction.discard(folder)
    folder.write_text("a file")


FOREIGN = [note, another_recipe, other_data, no_run, no_manifest, torn_manifest, link, no_folder]


@pytest.mark.parametrize("alter", FOREIGN)
@pytest.mark.parametrize("newest", [5, 2], ids=["earlier", "later"])
def test_what_is_not_provably_a_checkpoint_of_the_run_stays(alter, newest, tmp_path: Path):
    root = tmp_path / "checkpoints"
    for step in (1, 2, 3, 4, 5):
        write(root, step)
    alter(root / "step-3")
    before = seen(tmp_path)
    assert kept(root, newest) == sorted({f"step-{newest}", "step-3"})
    after = seen(tmp_path)
    assert {name: before[name] for name in after} == after
    assert {name for name in before if "step-3" in name or "elsewhere" in name} <= after.keys()


def seen(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_damaged_checkpoint_is_still_the_runs(tmp_path: Path):
    for step in (1, 2, 3):
        write(tmp_path, step)
    (tmp_path / "step-1" / "student" / "rank-00000.safetensors").write_text("spoilt")
    (tmp_path / "step-2" / "student" / "rank-00000.safetensors").unlink()
    assert kept(tmp_path, 3) == ["step-3"]


def test_a_key_that_recipes_have_gained_does_not_make_it_foreign(tmp_path: Path):
    write(tmp_path, 1, recipe={"seed": 1})
    write(tmp_path, 2)
    assert kept(tmp_path, 2) == ["step-2"]


@pytest.mark.parametrize("meant", [[0.9, 0.95], None])
def test_a_key_that_meant_something_else_before_makes_it_foreign(meant, tmp_path: Path):
    write(tmp_path, 1, recipe={"seed": 1})
    write(tmp_path, 2, recipe={})
    write(tmp_path, 3)
    owner = Owner(STATE, {"optim.betas": meant}.get)
    prune(tmp_path, Retention(1), owner, newest=3)
    assert {p.name for p in tmp_path.iterdir()} == {"step-1", "step-2", "step-3"}


@pytest.mark.parametrize("alter", FOREIGN)
def test_a_save_moves_aside_what_is_in_its_place_and_not_provably_the_runs(
    alter, tmp_path: Path, capsys
):
    root = tmp_path / "checkpoints"
    alter(write(root, 3))
    capsys.readouterr()
    before = seen(root)
    for number in (1, 2):
        if number == 2:
            note(root / "step-3")
            before = seen(root)
        folder = write(root, 3)
        assert transaction.problem_with(folder) is None
        moved = f"aside-{number}-step-3"
        line = f"checkpoints: {folder} is not of this run; it is {moved} now\n"
        assert capsys.readouterr().out == line
        after = seen(root)
        for name, content in before.items():
            assert after[name.replace("step-3", moved, not name.startswith("aside"))] == content


def test_leftovers_of_others_stay(tmp_path: Path):
    names = [".tmp-step-x", ".tmp-mine", ".trash", "step-007", "aside-1-step-3"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / ".tmp-step-1").symlink_to(tmp_path / ".tmp-mine")
    (tmp_path / ".tmp-step-2").mkdir()
    write(tmp_path, 9)
    assert kept(tmp_path, 9) == sorted([*names, ".tmp-step-1", "step-9"], key=lambda n: (len(n), n))
