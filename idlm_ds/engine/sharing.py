"""Which ranks share one copy of a network that never learns."""

import socket
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch.distributed as dist

from idlm_ds.engine.dist import TIMEOUT, World

Sharding: TypeAlias = Literal["world", "node", "none"]
"""Ranks that share a copy: all of them, those on one host, or each has its own."""

Groups: TypeAlias = Sequence[Sequence[int]]
"""Ranks by the copy they share; every rank is in one group."""


def groups_of(sharding: Sharding, world: World) -> Groups | None:
    """Return who shares a copy with whom; None where all ranks share one.

    Collective: every rank must call.
    """
    match sharding:
        case "world":
            return None
        case "none":
            return [[rank] for rank in range(world.size)]
        case "node":
            hosts = world.gather(socket.gethostname())
            groups = [
                [rank for rank, other in enumerate(hosts) if other == host]
                for host in dict.fromkeys(hosts)
            ]
            return None if len(groups) == 1 else groups


def is_whole(groups: Groups | None) -> bool:
    """Whether every rank has a copy of its own."""
    return groups is not None and all(len(group) == 1 for group in groups)


def own_group(groups: Groups) -> Any:
    """Make a process group of each group of ranks and return the one this rank is in.

    Collective: every rank must call.
    """
    group, _ = dist.new_subgroups_by_enumeration([list(g) for g in groups], timeout=TIMEOUT)
    return group
