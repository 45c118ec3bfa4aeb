"""The process group and the few collectives the programs need."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from idlm_ds import rendezvous
from idlm_ds.console import say
from idlm_ds.engine import failure, meeting
from idlm_ds.engine.backend import deepspeed
from idlm_ds.errors import UserError
from idlm_ds.startup import rank, world_size

PARTING_S = 60.0
"""How long rank 0 waits for the others at the end; all that is left to them is to leave."""

TIMEOUT = timedelta(minutes=30)
"""DeepSpeed's own default is ten minutes, less than a long evaluation on one rank takes."""


@dataclass(frozen=True, slots=True)
class World:
    """Where this process stands among all of them."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    group: Any = field(default=None, repr=False, compare=False)
    """Processes that take part in collectives; None for the group of training."""

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and speaks to the user."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all ranks.

        Collective: every rank must call.
        """
        devices = None if self.device.index is None else [self.device.index]
        dist.barrier(self.group, device_ids=devices)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add a tensor over all ranks.

        Collective: every rank must call.
        """
        total = values.to(self.device, copy=True)
        dist.all_reduce(total, group=self.group)
        return total

    def gather(self, value: Any) -> list[Any]:
        """Give every rank the plain values of all ranks, in rank order.

        Collective: every rank must call.
        """
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, self.group)
        return values

    def beside(self) -> "World":
        """Return the same ranks with a group of their own, on CPU, for another thread.

        Collective: every rank must call.
        """
        group = dist.new_group(timeout=TIMEOUT, backend="gloo")
        return replace(self, device=torch.device("cpu"), group=group)

    def share(self, sizes: Mapping[str, int]) -> list[str]:
        """Return the names that this rank takes care of, so that all have about as much to do.

        Args:
            sizes: Names and how much work each is; the same on all ranks.
        """
        loads = [0] * self.size
        shares: list[list[str]] = [[] for _ in loads]
        for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
            idlest = loads.index(min(loads))
            loads[idlest] += sizes[name]
            shares[idlest].append(name)
        return shares[self.rank]

    def first_problem(self, problem: str | None) -> str | None:
        """Give every rank the first problem that any of them has, in alphabetic order.

        Collective: every rank must call.
        """
        return min((p for p in self.gather(problem) if p is not None), default=None)

    def agree(self, value: Any) -> Any:
        """Give every rank the first rank's value.

        Collective: every rank must call.
        """
        box = [value if self.is_first else None]
        dist.broadcast_object_list(box, src=0, group=self.group, device=self.device)
        return box[0]


def join_world(*, is_watched: bool = False) -> World:
    """Join the process group described by the environment, or start one of size 1.

    On CPU DeepSpeed would compile a shared-memory operator here. That takes minutes, needs a
    compiler, and a killed build leaves a lock on which every later run waits for ever; training
    does not use the operator, so it is declared unavailable first.

    Args:
        is_watched: Whether the failure of another rank ends this process; see ``failure.py``.

    Raises:
        UserError: The other processes cannot be met.
    """
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    rendezvous.require_meeting_point(os.environ)
    if note := rendezvous.note_on_one_process(os.environ):
        say(note)
    os.environ.setdefault("RANK", "0")
    os.environ.setdefault("WORLD_SIZE", "1")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = _device(local_rank)
    # DeepSpeed takes it for the number of the device.
    os.environ["LOCAL_RANK"] = str(local_rank if device.index is None else device.index)
    os.environ.setdefault("LOCAL_SIZE", os.environ["WORLD_SIZE"])
    backend = "gloo" if device.type == "cpu" else "nccl"
    if os.environ["WORLD_SIZE"] == "1":
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ["MASTER_PORT"] = str(_free_port())
    else:
        _meet(backend, device, is_watched=is_watched)
    deepspeed.init_distributed(
        dist_backend=backend, auto_mpi_discovery=False, timeout=TIMEOUT, verbose=False
    )
    return World(dist.get_rank(), dist.get_world_size(), local_rank, device)


@contextmanager
def in_world() -> Iterator[World]:
    """Join the process group, and take it down at the end so that the interpreter exits quietly.

    Where one of several ranks fails, the group stays: the others would take closed connections for
    an error of their own. ``cli.launch`` tells them, and ends the process.
    """
    world = join_world(is_watched=True)
    try:
        yield world
    except BaseException:
        if world.size == 1:
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()
    failure.stop_watching(PARTING_S)


def _meet(backend: str, device: torch.device, *, is_watched: bool) -> None:
    """Form the process group once all processes are there."""
    patience = meeting.patience_s()
    store = failure.meet(patience)
    if is_watched:
        failure.start_watching(patience)
    meeting.wait_for_all(store, patience=patience)
    dist.init_process_group(
        backend,
        store=store,
        rank=rank(),
        world_size=world_size(),
        timeout=TIMEOUT,
        device_id=None if device.index is None else device,
    )


def _device(local_rank: int) -> torch.device:
    """Choose the device of a process, and make it the current one.

    A batch system may show each process one GPU, which is then number 0 whatever its rank.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if count > 1 and "LOCAL_RANK" not in os.environ and os.environ["WORLD_SIZE"] != "1":
        raise UserError(
            f"LOCAL_RANK is not set, and {socket.gethostname()} has {count} GPUs; set LOCAL_RANK "
            "to the number of the process in its host"
        )
    device = torch.device("cuda", local_rank % count)
    torch.cuda.set_device(device)
    return device


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
