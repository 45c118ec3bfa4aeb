"""The loader that all engines share, with a thread that reads ahead."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor

from idlm_ds.data.rows import Rows


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Sequences of one forward pass on one rank."""

    tokens: Tensor
    """Ids of shape (micro_batch, L), on the training device."""

    rows: slice
    """Rows of the global batch that these are."""

    samples: Sequence[int]
    """Sample indices in the whole run, from which random streams are derived."""

    scored: Tensor | None = None
    """Mask of shape (micro_batch, L), true where the loss applies; None for everywhere."""


@dataclass(frozen=True, slots=True)
class Batch:
    """All micro-batches of one rank in one phase."""

    micro_batches: Sequence[MicroBatch]
    wait_s: float
    """Seconds the training loop waited for this batch."""


@dataclass(frozen=True, slots=True)
class Loader:
    """Loader that gives every phase the next global batch, read ahead in a thread.

    Row ``j`` of the global batch goes to micro-batch ``j // (world * micro)``, so any number of
    ranks sees the same global batch. The only state is the number of the next phase.
    """

    windows: Rows
    _: KW_ONLY
    global_batch: int
    micro_batch: int
    rank: int
    world: int
    device: torch.device
    prefetch: int
    """Number of batches that may wait to be used."""

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield the batches of phases ``start`` to ``stop``.

        Raises:
            Exception: An error of the reading thread, at the batch where it occurred.
        """
        # The thread puts batches, or the error that stopped it, into a bounded queue.
        ahead: queue.Queue[list[MicroBatch] | BaseException] = queue.Queue(self.prefetch)
        closed = threading.Event()
        thread = threading.Thread(
            target=self._read_ahead,
            args=(range(start, stop), ahead, closed),
            name="loader",
            daemon=True,
        )
        thread.start()
        try:
            for _ in range(start, stop):
                began = time.perf_counter()
                item = ahead.get()
                if isinstance(item, BaseException):
                    raise item
                # Copies to the GPU are asynchronous, from pinned memory.
                on_device = [self._to_device(micro) for micro in item]
                yield Batch(on_device, time.perf_counter() - began)
        finally:
            # Also when the loop is left early: the thread must not outlive the iterator.
            closed.set()
            thread.join()

    def _read_ahead(
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
            # Give up waiting for a free slot once the loop has ended.
            while not closed.is_set():
                try:
                    ahead.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if closed.is_set() or isinstance(item, BaseException):
                return

    def read(self, phase: int) -> list[MicroBatch]:
        """Read this rank's part of the global batch of a phase, into host memory."""
        starts = range(
            self.rank * self.micro_batch, self.global_batch, self.world * self.micro_batch
        )
        return [self._read_rows(phase, first) for first in starts]

    def _read_rows(self, phase: int, first: int) -> MicroBatch:
        rows = slice(first, first + self.micro_batch)
        base = phase * self.global_batch
        samples = range(base + rows.start, base + rows.stop)
        scored = self.windows.scored(samples)
        return MicroBatch(
            self._pinned(torch.from_numpy(self.windows.take(samples))),
            rows,
            samples,
            None if scored is None else self._pinned(torch.from_numpy(scored)),
        )

    def _pinned(self, values: Tensor) -> Tensor:
        return values.pin_memory() if self.device.type == "cuda" else values

    def _to_device(self, micro: MicroBatch) -> MicroBatch:
        def move(values: Tensor) -> Tensor:
            return values.to(self.device, non_blocking=True)

        scored = None if micro.scored is None else move(micro.scored)
        return replace(micro, tokens=move(micro.tokens), scored=scored)
