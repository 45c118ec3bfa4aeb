"""Files and folders that take their name only when they are whole."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from idlm_ds.checkpoints.transaction import flush
from idlm_ds.errors import UserError


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target``; what is written there is renamed to it on success.

    A model that was there before is replaced. Leftovers of a killed process are removed by the next
    one with the same target.

    Raises:
        UserError: It cannot be written.
    """
    target = target.resolve()
    folder = target.with_name(f".{target.name}.partial")
    place = folder / target.name
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield place
        for path in [*place.rglob("*"), place, folder]:
            flush(path)
        _swap(place, target)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{target}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
