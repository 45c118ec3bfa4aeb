"""One pipelined loader for all engines."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idlm_ds.data.rows import Rows


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The sequences of one forward pass on one rank."""

    tokens: Tensor
    """(micro_batch, L) ids on the training device."""

    rows: slice
    """Which rows of the global batch these are."""

    samples: Sequence[int]
    """Their indices in the whole run, which name their random streams."""

    scored: Tensor | None = None
    """(micro_batch, L) whether a position is to be learned; None if all are."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one rank needs for one phase."""

    micro_batches: Sequence[MicroBatch]
    wait_s: float
    """Seconds the loop waited for it."""


class Loader:
    """Reads ahead in a thread; every phase gets the next global batch.

    Row ``j`` of the global batch goes to micro-batch ``j // (world * micro)``, so that the same
    global batch is seen by any number of ranks. The state is the index of the next phase.
    """

    def __init__(
        self,
        windows: Rows,
        *,
        global_batch: int,
        micro_batch: int,
        rank: int,
        world: int,
        device: torch.device,
        prefetch: int,
    ) -> None:
        self.windows = windows
        self.global_batch = global_batch
        self.device = device
        self._micro = micro_batch
        self._starts = range(rank * micro_batch, global_batch, world * micro_batch)
        self._prefetch = prefetch

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield the batches of phases ``start`` to ``stop``.

        Raises:
            Exception: Whatever the reading thread met, at the batch where it met it.
        """
        ahead: queue.Queue[list[MicroBatch] | BaseException] = queue.Queue(self._prefetch)
        closed = threading.Event()
        thread = threading.Thread(
            target=self._read, args=(range(start, stop), ahead, closed), name="loader", daemon=True
        )
        thread.start()
        try:
            for _ in range(start, stop):
                began = time.perf_counter()
                item = ahead.get()
                if isinstance(item, BaseException):
                    raise item
                moved = [self._to_device(m) for m in item]
                yield Batch(moved, time.perf_counter() - began)
        finally:
            closed.set()
            thread.join()

    def _read(
        self,
        phases: range,
        ahead: "queue.Queue[list[MicroBatch] | BaseException]",
        closed: threading.Event,
    ) -> None:
        item: list[MicroBatch] | BaseException
        for phase in phases:
            try:
                item = self.read(phase)
            except BaseException as error:
                item = error
            while not closed.is_set():
                try:
                    ahead.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if closed.is_set() or isinstance(item, BaseException):
                return

    def read(self, phase: int) -> list[MicroBatch]:
        """This rank's part of the global batch of a phase, in host memory."""
        return [self._micro_batch(phase, first) for first in self._starts]

    def _micro_batch(self, phase: int, first: int) -> MicroBatch:
        rows = slice(first, first + self._micro)
        base = phase * self.global_batch
        samples = range(base + rows.start, base + rows.stop)
        scored = self.windows.scored(samples)
        return MicroBatch(
            self._ready(torch.from_numpy(self.windows.take(samples))),
            rows,
            samples,
            None if scored is None else self._ready(torch.from_numpy(scored)),
        )

    def _ready(self, values: Tensor) -> Tensor:
        return values.pin_memory() if self.device.type == "cuda" else values

    def _to_device(self, micro: MicroBatch) -> MicroBatch:
        def move(values: Tensor) -> Tensor:
            return values.to(self.device, non_blocking=True)

        scored = None if micro.scored is None else move(micro.scored)
        return replace(micro, tokens=move(micro.tokens), scored=scored)
