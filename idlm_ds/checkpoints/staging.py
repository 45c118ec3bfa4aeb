"""Files and folders that take their name only when they are whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from idlm_ds.errors import UserError


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Lend a place beside ``target``; what is put there gets its name when the block ends well.

    A model that was there before is replaced. What a killed process left behind is removed by the
    next one with the same target.

    Raises:
        UserError: It cannot be written.
    """
    target = target.resolve()
    room = target.with_name(f".{target.name}.partial")
    place = room / target.name
    try:
        shutil.rmtree(room, ignore_errors=True)
        room.mkdir(parents=True)
        yield place
        _flush(place)
        _swap(place, target)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{target}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _flush(place: Path) -> None:
    inside = sorted(place.iterdir()) if place.is_dir() else []
    for path in [*inside, place, place.parent]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _swap(place: Path, target: Path) -> None:
    # No call replaces a folder that is not empty, so the old one steps aside.
    old = target.with_name(f".{target.name}.old")
    is_replaced = target.exists()
    if is_replaced:
        target.rename(old)
    try:
        place.rename(target)
    except OSError:
        if is_replaced:
            old.rename(target)
        raise
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)
