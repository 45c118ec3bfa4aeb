"""A folder is whole, or it is not read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from idlm_ds.checkpoints import transaction

FILES = {"loop.json": b'{"step": 3}', "fake/rank-00000": b"weights", "student/rank-00000": b"more"}


def write(root: Path, step: int, files: dict[str, bytes] = FILES) -> Path:
    folder = transaction.begin(root, step)
    entries = {}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        entries[name] = transaction.describe(path)
    return transaction.commit(folder, entries, step)


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != transaction.MANIFEST)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def replace_by_link(path: Path) -> None:
    elsewhere = path.parent.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def test_a_committed_folder_is_whole_and_holds_what_was_written(tmp_path: Path):
    folder = write(tmp_path, 3)
    assert folder == tmp_path / "step-3"
    assert transaction.problem_with(folder) is None
    assert contents(folder) == FILES
    assert [p.name for p in tmp_path.iterdir()] == ["step-3"]


@pytest.mark.parametrize(
    ("damage", "name", "complaint"),
    [
        (truncate, "fake/rank-00000", "fake/rank-00000 has the wrong size"),
        (Path.unlink, "fake/rank-00000", "fake/rank-00000 is missing"),
        (Path.touch, "fake/rank-00001", "fake/rank-00001 is not in the manifest"),
        (replace_by_link, "fake/rank-00000", "fake/rank-00000 has the wrong size"),
        (Path.unlink, "MANIFEST.json", "no MANIFEST.json"),
        (truncate, "MANIFEST.json", "unreadable MANIFEST.json"),
    ],
)
def test_damage_is_named(
    damage: Callable[[Path], object], name: str, complaint: str, tmp_path: Path
):
    folder = write(tmp_path, 3)
    damage(folder / name)
    assert transaction.problem_with(folder) == f"{folder}: {complaint}"


@pytest.mark.parametrize("text", ["[]", "7", '{"files": []}', '{"files": {"a": 1}}', "{}", "\xff"])
def test_a_manifest_of_another_form_is_unreadable(text: str, tmp_path: Path):
    folder = write(tmp_path, 3)
    (folder / transaction.MANIFEST).write_bytes(text.encode("latin-1"))
    assert transaction.problem_with(folder) == f"{folder}: unreadable MANIFEST.json"


@pytest.mark.parametrize("name", [*FILES, transaction.MANIFEST])
def test_every_flipped_bit_is_found(name: str, tmp_path: Path):
    path = write(tmp_path, 3) / name
    every = 8 * len(path.read_bytes())
    for bit in range(0, every, 1 if every < 100 else 13):
        flip(path, bit)
        assert transaction.problem_with(path.parents[name.count("/")]) is not None, bit
        flip(path, bit)
    assert transaction.problem_with(path.parents[name.count("/")]) is None


def test_what_a_killed_save_leaves_is_not_a_step_and_goes_with_the_next(tmp_path: Path):
    write(tmp_path, 3)
    killed = transaction.begin(tmp_path, 4)
    (killed / transaction.MANIFEST).write_text(json.dumps({"files": {}}))
    (tmp_path / ".trash-step-1").mkdir()
    assert transaction.steps(tmp_path) == [3]
    write(tmp_path, 5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-3", "step-5"]


def test_a_step_saved_again_replaces_the_earlier_one(tmp_path: Path):
    write(tmp_path, 3)
    again = {"loop.json": b"other", "fake/rank-00000": b"new"}
    folder = write(tmp_path, 3, again)
    assert transaction.problem_with(folder) is None
    assert contents(folder) == again


def test_a_kill_while_an_earlier_one_is_deleted_leaves_the_new_one(tmp_path: Path, monkeypatch):
    write(tmp_path, 3)
    again = {"loop.json": b"other", "fake/rank-00000": b"new"}

    def killed(path: Path, **_: object) -> None:
        if path.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(transaction.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 3, again)
    assert transaction.problem_with(tmp_path / "step-3") is None
    assert contents(tmp_path / "step-3") == again


def test_steps_are_ordered_as_numbers(tmp_path: Path):
    for name in ("step-10", "step-9", "step-x", "other-3", ".tmp-step-11"):
        (tmp_path / name).mkdir()
    assert transaction.steps(tmp_path) == [9, 10]
    assert transaction.steps(tmp_path / "nowhere") == []
