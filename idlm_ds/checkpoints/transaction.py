"""Folders that are either whole or not there.

A folder is written under a temporary name; its manifest, with the size and SHA-256 of every file,
comes last; then the folder is renamed. Only a folder whose manifest holds is ever read. Nothing
points at the newest one: the newest valid one is it.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import TypedDict

from idlm_ds.console import say

MANIFEST = "MANIFEST.json"
PREFIX = "step-"
_LEFTOVER = re.compile(r"\.(tmp|trash)-step-\d+")

HASHED_AT_ONCE = 4
"""Files that one process reads at the same time."""


class FileEntry(TypedDict):
    """What the manifest says of one file."""

    size: int
    sha256: str


def describe(path: Path) -> FileEntry:
    """Flush a file to disk and hash it."""
    flush(path)
    return FileEntry(size=path.stat().st_size, sha256=_hash(path))


def begin(root: Path, step: int) -> Path:
    """Make an empty temporary folder for a step; leftovers of killed saves are removed."""
    root.mkdir(parents=True, exist_ok=True)
    for leftover in root.iterdir():
        if _LEFTOVER.fullmatch(leftover.name) and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
    folder = root / f".tmp-{PREFIX}{step}"
    folder.mkdir()
    return folder


def commit(
    folder: Path,
    entries: Mapping[str, FileEntry],
    step: int,
    *,
    may_replace: Callable[[Path], bool] | None = None,
) -> Path:
    """Write the manifest and name the folder, which ``begin`` made, after its step.

    Args:
        folder: What ``begin`` returned.
        entries: All files below it, by relative path, as ``describe`` saw them.
        step: The step it is named after.
        may_replace: Whether a folder of that name may be deleted: by default one that holds
            nothing else than a checkpoint. Another one is moved aside.
    """
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": dict(entries)}, indent=1, sort_keys=True))
    describe(manifest)
    for inner in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        flush(inner)
    final = folder.parent / f"{PREFIX}{step}"
    # Nothing but a rename comes between the old folder and the new one.
    trash = _make_room(final, may_replace or holds_nothing_else)
    folder.rename(final)
    flush(final.parent)
    if trash is not None:
        shutil.rmtree(trash, ignore_errors=True)
    return final


def _make_room(final: Path, may_replace: Callable[[Path], bool]) -> Path | None:
    """Rename what has the name of a new folder; return it where it is to be deleted."""
    if not os.path.lexists(final):
        return None
    if may_replace(final):
        return _to_trash(final)
    aside = _aside(final)
    final.rename(aside)
    say(f"checkpoints: {final} is not of this run; it is {aside.name} now")
    return None


def problem_with(folder: Path) -> str | None:
    """Describe why a folder must not be read, or return None.

    Every file is hashed, so a flipped bit, a missing or an extra file is reported.
    """
    entries, problem = read_manifest(folder)
    return problem or problem_in(folder, entries)


def read_manifest(folder: Path) -> tuple[dict[str, FileEntry], str | None]:
    """Read what a folder should hold, and compare names with what is there; nothing is hashed.

    Returns:
        Files by relative path, and why the folder must not be read; None if nothing is wrong yet.
    """
    try:
        entries = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
        listed = {
            name: FileEntry(size=entry["size"], sha256=entry["sha256"])
            for name, entry in entries.items()
        }
    except FileNotFoundError:
        return {}, f"{folder}: no {MANIFEST}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, f"{folder}: unreadable {MANIFEST}"
    present = _present(folder)
    if missing := listed.keys() - present:
        return listed, f"{folder}: {min(missing)} is missing"
    if extra := present - listed.keys() - {MANIFEST}:
        return listed, f"{folder}: {min(extra)} is not in the manifest"
    return listed, None


def problem_in(folder: Path, entries: Mapping[str, FileEntry]) -> str | None:
    """Hash files, some at a time, and describe the first that is not what its entry says."""
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        problems = pool.map(lambda item: _problem_of(folder, *item), entries.items())
        return next((problem for problem in problems if problem is not None), None)


def _problem_of(folder: Path, name: str, entry: FileEntry) -> str | None:
    path = folder / name
    try:
        if not path.exists():  # where one rank has another disk than the first
            return f"{folder}: {name} is missing"
        if path.is_symlink() or not path.is_file() or path.stat().st_size != entry["size"]:
            return f"{folder}: {name} has the wrong size"
        if _hash(path) != entry["sha256"]:
            return f"{folder}: {name} does not match its SHA-256"
    except OSError as error:
        return f"{folder}: {name} cannot be read: {error.strerror}"
    return None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def steps(root: Path) -> list[int]:
    """List the steps with a committed folder, ascending, valid or not."""
    names = (p.name.removeprefix(PREFIX) for p in root.glob(f"{PREFIX}*"))
    return sorted(int(n) for n in names if n.isdecimal() and str(int(n)) == n)


def holds_nothing_else(folder: Path) -> bool:
    """Tell whether a folder is a checkpoint, damaged or not, with no file that is not its own."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    try:
        listed = json.loads((folder / MANIFEST).read_text("utf-8"))["files"].keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return _present(folder) <= {*listed, MANIFEST}


def discard(folder: Path) -> None:
    """Delete a folder, which vanishes in one rename first."""
    shutil.rmtree(_to_trash(folder))


def _to_trash(folder: Path) -> Path:
    trash = folder.with_name(f".trash-{folder.name}")
    shutil.rmtree(trash, ignore_errors=True)
    folder.rename(trash)
    return trash


def _aside(folder: Path) -> Path:
    names = (folder.with_name(f"aside-{number}-{folder.name}") for number in count(1))
    return next(name for name in names if not os.path.lexists(name))


def _present(folder: Path) -> set[str]:
    return {
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()
    }


def flush(path: Path) -> None:
    """Write a file, or the names in a folder, from the cache to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
