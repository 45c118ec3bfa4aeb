"""Runs a function on gloo ranks, each a process of its own.

Ranks are forked from a server that has imported torch and DeepSpeed once, so they start in a
fraction of a second. A rank that raises fails the test with its traceback and its peers are killed,
since they may be waiting for it in a collective. Nothing here ever skips.
"""

import faulthandler
import gc
import json
import os
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import torch

TIMEOUT_S = 120.0

_SERVER_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "DEEPSPEED_LOG_LEVEL": "error",
    "DS_ACCELERATOR": "cpu",
    "OMP_NUM_THREADS": "1",
}
_PRELOAD = [
    "pytest",
    "idlm_ds.engine.checkpoint",
    "idlm_ds.train.step",
    # What DeepSpeed imports when the first engine starts.
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "torch._inductor.compile_fx",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
]


class RankFailure(AssertionError):
    """At least one rank raised, died or hung."""


def run_ranks(
    function: Callable[..., Any], size: int, *args: Any, timeout_s: float = TIMEOUT_S
) -> list[Any]:
    """Call ``function(world, *args)`` on ``size`` ranks and return what each of them returned.

    Args:
        function: Importable by name; ``world`` is an ``idlm_ds.engine.dist.World``.
        size: Number of ranks.
        args: Plain values. Results may hold tensors and plain values.
        timeout_s: When it is over, the ranks print their stacks and are killed.

    Raises:
        RankFailure: Shows the output of the ranks, the first one to fail last.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    port = _free_port()
    with tempfile.TemporaryDirectory() as name, _Environment(_SERVER_ENVIRONMENT):
        folder = Path(name)
        ranks = [
            context.Process(
                target=_rank, args=(folder, rank, size, port, timeout_s, function, args)
            )
            for rank in range(size)
        ]
        try:
            for rank in ranks:
                rank.start()
            verdict = _wait(ranks, timeout_s)
        finally:
            for rank in ranks:
                if rank.is_alive():
                    rank.kill()
                rank.join()
        if verdict is not None:
            raise RankFailure(_report(verdict, folder, size))
        return [torch.load(folder / f"{r}.result", weights_only=True) for r in range(size)]


def _wait(ranks: list[BaseProcess], timeout_s: float) -> str | None:
    """Wait for all ranks, or for the first that fails."""
    deadline = time.monotonic() + timeout_s
    while running := [r for r in ranks if r.exitcode is None]:
        if not wait([r.sentinel for r in running], timeout=deadline - time.monotonic()):
            return f"{len(running)} of {len(ranks)} ranks still ran after {timeout_s:g} s"
        for number, rank in enumerate(ranks):
            if rank.exitcode not in (None, 0):
                return f"rank {number} of {len(ranks)} ended with exit code {rank.exitcode}"
    return None


def _report(verdict: str, folder: Path, size: int) -> str:
    """What the ranks printed and raised; the first to raise comes last, where one looks."""
    parts = [verdict]
    parts += [f"--- rank {r} printed:\n{text}" for r in range(size) if (text := _output(folder, r))]
    errors = sorted(json.loads(p.read_text()) for p in folder.glob("*.error"))
    return "\n".join(parts + [f"--- rank {r} raised:\n{text}" for _, r, text in errors[::-1]])


def _output(folder: Path, rank: int) -> str:
    path = folder / f"{rank}.output"
    return path.read_text(errors="replace").strip() if path.exists() else ""


def _rank(
    folder: Path,
    rank: int,
    size: int,
    port: int,
    timeout_s: float,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    """Body of a rank."""
    output = os.open(folder / f"{rank}.output", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable(file=output)
    faulthandler.dump_traceback_later(max(0.5, timeout_s - 1.0), file=output)
    threading.Thread(target=_die_with_the_test, daemon=True).start()
    torch.set_num_threads(1)
    gc.freeze()  # DeepSpeed collects garbage when an engine starts; the libraries are none
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        from idlm_ds.engine.dist import join_world

        world = join_world()
        result = function(world, *args)
        world.barrier()
        torch.save(result, folder / f"{rank}.result")
        torch.distributed.destroy_process_group()
    except BaseException:
        # The peers notice only when this process is gone, so this error is the earliest.
        error = (time.monotonic_ns(), rank, traceback.format_exc().rstrip())
        (folder / f"{rank}.error").write_text(json.dumps(error))
        _leave(1)
    _leave(0)


def _leave(code: int) -> NoReturn:
    """End this process without the orderly steps that may wait for other ranks."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _die_with_the_test() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


class _Environment:
    """Sets variables for as long as the block lasts; the server inherits them when it starts."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in self._values}
        os.environ.update(self._values)

    def __exit__(self, *error: object) -> None:
        for name, value in self._before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
