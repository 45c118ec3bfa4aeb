"""Where the processes of a run meet: one store of small values, which rank 0 or torchrun serves.

torch waits up to half an hour for a process that never comes, and for ever for a program that
listens on the port and does not answer. Here every wait has an end, and its reason is one line.
"""

import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from threading import Thread

import torch.distributed as dist

from idlm_ds import early_failure, rendezvous
from idlm_ds.errors import UserError
from idlm_ds.startup import rank, world_size

PATIENCE = "IDLM_JOIN_SECONDS"
"""Variable that says how long processes wait for each other at the start."""

DEFAULT_PATIENCE_S = 300
POLL_S = 0.1


def patience_s() -> int:
    """Return how many seconds processes wait for each other at the start.

    Raises:
        UserError: The variable is no whole number.
    """
    return rendezvous.number({PATIENCE: str(DEFAULT_PATIENCE_S), **os.environ}, PATIENCE, least=1)


def is_server() -> bool:
    """Whether this process serves the store; torchrun does so itself, on the same port."""
    return rank() == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def open_store(*, serves: bool, patience: float, is_up: bool = False) -> dist.Store:
    """Connect to the store of this run, and serve it if this process is the one to do so.

    Args:
        serves: Whether this process serves the store.
        patience: How many seconds to wait for it.
        is_up: Whether it has answered before.

    Raises:
        UserError: It cannot be reached in time, or the port is taken.
        SystemExit: Rank 0 has failed, with this exit code, before it could serve it.
    """
    rendezvous.require_meeting_point(os.environ)
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    deadline = time.monotonic() + patience
    if not (serves or is_up):
        # torch reports every failed attempt with a stack, so the first one should succeed.
        _wait_for_listener(host, port, patience)
    remaining = timedelta(seconds=max(1.0, deadline - time.monotonic()))

    def connect() -> dist.Store:
        return dist.TCPStore(
            host, port, world_size(), serves, timeout=remaining, wait_for_workers=False
        )

    try:
        store = _within(remaining.total_seconds(), connect)
    except dist.DistError as error:
        if "EADDRINUSE" in str(error):
            raise UserError(
                f"MASTER_PORT: {port} is in use on {socket.gethostname()}; choose another port"
            ) from error
        raise UserError(f"MASTER_ADDR: rank {rank()} cannot meet at {host}:{port}") from error
    if store is None:
        raise UserError(
            f"MASTER_PORT: what listens on {host}:{port} is not rank 0 of this run; choose another "
            "port"
        )
    # torchrun serves one store to a run and to its restarts.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"idlm_ds/{attempt}", store)


def wait_for_all(store: dist.Store, *, patience: float) -> None:
    """Wait until every process has come.

    Raises:
        UserError: One has not come in time, or two have the same rank.
    """
    deadline = time.monotonic() + patience
    name = f"process {os.getpid()} on {socket.gethostname()}"
    holder = store.compare_set(f"here/{rank()}", "", name).decode()
    if holder != name:
        raise UserError(
            f"RANK: {holder} already has rank {rank()} at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']}; give every run its own MASTER_PORT"
        )
    store.add("here", 1)
    while store.add("here", 0) < world_size():
        if time.monotonic() > deadline:
            missing = [r for r in range(world_size()) if not store.check([f"here/{r}"])]
            if is_server():
                store.add("left", len(missing))  # nobody waits for them to leave
            named = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
            raise UserError(
                f"{len(missing)} of {world_size()} processes did not come within {patience:g} s "
                f"({PATIENCE}): rank {named}"
            )
        time.sleep(POLL_S)


def _wait_for_listener(host: str, port: int, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            with socket.create_connection((host, port), timeout=min(5.0, patience)) as peer:
                failed = early_failure.read_error(peer)
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"rank 0 does not answer at {host}:{port} (MASTER_ADDR, MASTER_PORT) within "
                    f"{patience:g} s ({PATIENCE}): {error.strerror or error}"
                ) from error
            time.sleep(POLL_S)
        else:
            if failed is not None:
                raise SystemExit(failed[0])
            return


def _within(limit: float, make: Callable[[], dist.Store]) -> dist.Store | None:
    """Call a function that may never return; None where it takes too long."""
    results: list[dist.Store | dist.DistError] = []

    def call() -> None:
        try:
            results.append(make())
        except dist.DistError as error:
            results.append(error)

    thread = Thread(target=call, name="store", daemon=True)
    thread.start()
    thread.join(limit + 1.0)
    match results:
        case [dist.DistError() as error]:
            raise error
        case [dist.Store() as store]:
            return store
        case _:
            return None
