"""Work that one rank does first, or alone, while the others wait.

They wait at the store in which they met, where a wait has no limit, and not in a collective.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from idlm_ds.engine import failure
from idlm_ds.engine.dist import World

POLL_S = 0.1
CHUNK = 1 << 26
"""Elements that are sent at once, since they pass through the memory of a GPU."""

Array = npt.NDArray[np.int32]

_turns = count()


@contextmanager
def host_first(world: World) -> Iterator[bool]:
    """Let one rank of each host go through a block before its other ranks do.

    Collective: every rank must call.

    Yields:
        Whether this rank is the first of its host.
    """
    if world.size == 1:
        yield True
        return
    turn, hosts = next(_turns), world.gather(socket.gethostname())
    leader = hosts.index(hosts[world.rank])
    if leader != world.rank:
        _wait_for(f"turn/{turn}/{leader}")
    yield leader == world.rank
    if leader == world.rank:
        failure.store().set(f"turn/{turn}/{leader}", "done")


def first_makes(world: World, make: Callable[[], tuple[Array, ...]]) -> tuple[Array, ...]:
    """Give every rank the arrays that the first rank makes.

    Collective: every rank must call.

    Args:
        world: The process group.
        make: Called on the first rank only.
    """
    if world.size == 1:
        return make()
    turn, arrays = next(_turns), None
    if world.is_first:
        arrays = make()
        failure.store().set(f"turn/{turn}/0", "done")
    else:
        _wait_for(f"turn/{turn}/0")
    shapes = world.agree([a.shape for a in arrays] if arrays else None)
    return tuple(
        _broadcast(world, arrays[i] if arrays else np.empty(shape, np.int32))
        for i, shape in enumerate(shapes)
    )


def _broadcast(world: World, array: Array) -> Array:
    for chunk in torch.from_numpy(array.reshape(-1)).split(CHUNK):
        sent = chunk.to(world.device)
        dist.broadcast(sent, src=0)
        chunk.copy_(sent)
    return array


def _wait_for(key: str) -> None:
    store = failure.store()
    while not store.check([key]):
        time.sleep(POLL_S)
