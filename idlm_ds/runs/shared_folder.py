"""The folder of a run must be one folder to all ranks."""

import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path

from idlm_ds.engine.dist import World
from idlm_ds.errors import UserError

SEEN_WITHIN_S = 15.0
"""A network file system may show new files to other hosts a little later."""


def require_shared(folder: Path, world: World) -> None:
    """Check that every rank sees the folder that the first rank makes, and can write into it.

    Collective: every rank must call. Nothing stays but the folder; not even that if it was made
    here and some rank does not see it.

    Raises:
        UserError: The folder cannot be made, or is not one folder to all ranks.
    """
    is_new, token, problem = False, f".shared-{secrets.token_hex(8)}", None
    try:
        if world.is_first:
            try:
                is_new = not folder.exists()
                folder.mkdir(parents=True, exist_ok=True)
                (folder / token).touch()
            except OSError as error:
                problem = f"--output: cannot write {folder}: {error.strerror}"
        token, problem = world.agree((token, problem))
        if problem is None:
            problem = world.first_problem(_problem(folder, token, world.rank))
    finally:
        # Also where a signal ends the run here.
        if world.is_first:
            with suppress(OSError):
                (folder / token).unlink(missing_ok=True)
    if world.is_first and problem is not None and is_new:
        with suppress(OSError):
            folder.rmdir()
    if problem is not None:
        raise UserError(problem)


def _is_seen(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # this host may not search the folder, or has lost it
        return False


def _problem(folder: Path, token: str, rank: int) -> str | None:
    """Say what keeps this rank from sharing the folder."""
    deadline = time.monotonic() + SEEN_WITHIN_S
    while not _is_seen(folder / token):
        if time.monotonic() > deadline:
            return (
                f"--output: rank {rank} on {socket.gethostname()} does not see {folder} of rank 0; "
                "name a folder on a file system that all hosts share"
            )
        time.sleep(0.2)
    probe = folder / f"{token}-{rank}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        return (
            f"--output: rank {rank} on {socket.gethostname()} cannot write {folder}: "
            f"{error.strerror}"
        )
    return None
