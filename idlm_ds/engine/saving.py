"""Checkpoints on their way to disk, at once or beside training.

A snapshot is this rank's part of the trained state, in host memory. The ranks write their parts
into one temporary folder, tell each other how that went, and the first rank commits the folder.
Beside training this happens in a thread with a process group of its own, since collectives of two
threads on one group may meet in another order on another rank.
"""

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

from torch import Tensor

from idlm_ds.checkpoints import transaction
from idlm_ds.checkpoints.rank_files import rank_file
from idlm_ds.checkpoints.retention import STATE, Owner, Retention, prune, unknown
from idlm_ds.checkpoints.tensors import save_tensors
from idlm_ds.console import say
from idlm_ds.engine.dist import World
from idlm_ds.engine.role import TrainedRole
from idlm_ds.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One rank's part of the state after a phase, in host memory."""

    step: int
    """Phases done."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    """By role, then as ``KIND:NAME``: flat runs of elements."""

    places: Mapping[str, str]
    """By role: where each run begins and what shape its parameter has, as JSON."""

    state: Mapping[str, Any]
    """JSON values that go with them; the same on all ranks."""


def take_snapshot(
    step: int, roles: Mapping[str, TrainedRole], state: Mapping[str, Any], *, is_copied: bool
) -> Snapshot:
    """Collect this rank's part of the trained state.

    Args:
        step: Phases done.
        roles: The trained roles.
        state: JSON values that go with them.
        is_copied: Whether training may go on before the snapshot is written. Otherwise what is in
            host memory already is not copied.
    """
    tensors, places = {}, {}
    for name, role in roles.items():
        # Whole flat buffers move; fragments are views of them.
        buffers = {
            kind: [flat.detach().to("cpu", copy=is_copied) for flat in flats]
            for kind, flats in role.stored().items()
        }
        fragments = role.shards.fragments
        tensors[name] = {
            f"{kind}:{f.name}": f.view(flats) for kind, flats in buffers.items() for f in fragments
        }
        places[name] = json.dumps({f.name: {"start": f.start, "shape": f.shape} for f in fragments})
    updates = {name: role.updates for name, role in roles.items()}
    means = [name for name, role in roles.items() if role.has_mean]
    return Snapshot(
        step, tensors, places, {**state, "step": step, "updates": updates, "means": means}
    )


def write_snapshot(
    root: Path,
    snapshot: Snapshot,
    retention: Retention,
    *,
    world: World,
    before: Callable[[str], object] = unknown,
) -> Path:
    """Write ``root/step-N`` whole or not at all, then delete checkpoints that need not stay.

    ``before`` says what a key of the recipe meant before recipes had it.

    Collective: every rank must call, with its part of the same snapshot.

    Raises:
        UserError: A rank cannot write, the same on all ranks; earlier checkpoints are as they were.
    """
    label = f"{root}: the checkpoint of phase {snapshot.step} cannot be written"
    owner, step = Owner(snapshot.state, before), snapshot.step
    # A folder that all ranks write to.
    begun = _attempt(lambda: transaction.begin(root, step)) if world.is_first else None
    folder, problem = world.agree(begun)
    if problem is None:
        entries, problem = _attempt(lambda: _write_part(folder, snapshot, world))
        gathered = world.gather((entries, problem and f"{problem} ({_whereabouts(world)})"))
        problem = next((found for _, found in gathered if found is not None), None)
    # All parts are on disk, or there is no checkpoint.
    if problem is None and world.is_first:
        merged = {name: entry for part, _ in gathered for name, entry in part.items()}
        _, problem = _attempt(
            lambda: transaction.commit(folder, merged, step, may_replace=owner.made)
        )
    problem = world.agree(problem)
    if problem is not None:
        if world.is_first and folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"{label}: {problem}")
    if world.is_first:
        _, problem = _attempt(lambda: prune(root, retention, owner, newest=step))
        if problem is not None:
            say(f"checkpoints: an old one could not be deleted: {problem}")
    return root / f"{transaction.PREFIX}{step}"


def _write_part(folder: Path, snapshot: Snapshot, world: World) -> dict[str, transaction.FileEntry]:
    """Write and hash this rank's files; the first rank's include the JSON values."""
    entries = {}
    for role, tensors in snapshot.tensors.items():
        path = folder / role / rank_file(world.rank)
        path.parent.mkdir(exist_ok=True)
        save_tensors(path, tensors, {"fragments": snapshot.places[role]})
        entries[f"{role}/{path.name}"] = transaction.describe(path)
    if world.is_first:
        path = folder / STATE
        path.write_text(json.dumps({**snapshot.state, "time": time.time()}, indent=1))
        entries[STATE] = transaction.describe(path)
    return entries


def _attempt(action: Callable[[], T]) -> tuple[T | None, str | None]:
    """Return the result of an action on files, or why it failed."""
    try:
        return action(), None
    except OSError as error:
        return None, error.strerror or str(error)


def _whereabouts(world: World) -> str:
    return f"rank {world.rank}, host {socket.gethostname()}"


@final
class CheckpointWriter:
    """Writes the checkpoints of a run, never more than one at a time."""

    def __init__(
        self,
        root: Path,
        retention: Retention,
        *,
        world: World,
        is_asynchronous: bool = False,
        before: Callable[[str], object] = unknown,
    ) -> None:
        """Prepare to write; nothing is written yet.

        Collective: every rank must call, with the same arguments.

        Args:
            root: The run's ``checkpoints`` folder.
            retention: Which checkpoints stay.
            world: The process group of training.
            is_asynchronous: Whether training goes on while a copy of its state is written.
            before: What a key of the recipe meant before recipes had it.
        """
        self._before = before
        self.is_asynchronous = is_asynchronous
        self.root = root
        self._retention = retention
        self._world = world.beside() if is_asynchronous else world
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, roles: Mapping[str, TrainedRole], state: Mapping[str, Any]) -> None:
        """Write the present state, or begin to, after an earlier write has ended.

        Collective: every rank must call, with the same arguments.

        Raises:
            UserError: A rank could not write this or the earlier checkpoint, the same on all ranks.
        """
        self.wait()
        snapshot = take_snapshot(step, roles, state, is_copied=self.is_asynchronous)
        if not self.is_asynchronous:
            self._write(snapshot)
            self.wait()
            return
        self._thread = threading.Thread(
            target=self._write, args=(snapshot,), name="checkpoint", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            UserError: A rank could not write, the same on all ranks.
        """
        self.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def join(self, limit: float | None = None) -> None:
        """Wait until nothing is being written, whatever came of it, or for ``limit`` seconds."""
        if self._thread is not None:
            self._thread.join(limit)
            if not self._thread.is_alive():
                self._thread = None

    @property
    def is_writing(self) -> bool:
        """Whether a write goes on beside training, as far as this rank knows."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def has_failed(self) -> bool:
        """Whether ``wait`` would raise, as far as this rank knows."""
        return self._error is not None

    @property
    def has_crashed(self) -> bool:
        """Whether ``wait`` would raise an error that other ranks have not heard of."""
        return self._error is not None and not isinstance(self._error, UserError)

    def _write(self, snapshot: Snapshot) -> None:
        try:
            write_snapshot(
                self.root, snapshot, self._retention, world=self._world, before=self._before
            )
        except BaseException as error:  # raised where training waits for it
            self._error = error
