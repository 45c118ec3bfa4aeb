import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import pytest
import torch

from idlm_ds.data.loader import Batch, Loader, MicroBatch
from idlm_ds.data.windows import Windows

GLOBAL_BATCH, LENGTH = 8, 4
WINDOWS = Windows(np.arange(200, dtype=np.int32), LENGTH, 3)


class Broken:
    """Windows that cannot be read from some sample on."""

    length = LENGTH

    def __init__(self, first_bad: int) -> None:
        self.first_bad = first_bad

    def take(self, samples: Sequence[int]) -> np.ndarray:
        if max(samples) >= self.first_bad:
            raise OSError("the disk is gone")
        return WINDOWS.take(samples)

    def scored(self, samples: Sequence[int]) -> None:
        return None


def loader(
    *, rank: int = 0, world: int = 1, micro: int = 2, prefetch: int = 2, windows: object = WINDOWS
) -> Loader:
    return Loader(
        windows,
        global_batch=GLOBAL_BATCH,
        micro_batch=micro,
        rank=rank,
        world=world,
        device=torch.device("cpu"),
        prefetch=prefetch,
    )


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "loader"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    assert not readers()
    yield
    assert not readers()


def global_batches(start: int, stop: int, *, world: int, micro: int) -> list[torch.Tensor]:
    """What all ranks get together, micro-batch by micro-batch and rank by rank."""
    ranks = [
        list(loader(rank=r, world=world, micro=micro).batches(start, stop)) for r in range(world)
    ]
    return [
        torch.cat(
            [
                rank[phase].micro_batches[i].tokens
                for i in range(GLOBAL_BATCH // (world * micro))
                for rank in ranks
            ]
        )
        for phase in range(stop - start)
    ]


@pytest.mark.parametrize(("world", "micro"), [(1, 8), (1, 1), (2, 4), (2, 1), (4, 2), (4, 1)])
def test_any_number_of_ranks_reads_the_same_global_batch(world, micro):
    got = global_batches(0, 15, world=world, micro=micro)
    for phase, tokens in enumerate(got):
        samples = range(phase * GLOBAL_BATCH, (phase + 1) * GLOBAL_BATCH)
        assert tokens.equal(torch.from_numpy(WINDOWS.take(samples)))


@pytest.mark.parametrize(("world", "micro"), [(1, 2), (2, 2), (4, 1)])
def test_micro_batches_say_which_rows_and_samples_they_are(world, micro):
    rows, samples = [], []
    for rank in range(world):
        for phase, batch in enumerate(loader(rank=rank, world=world, micro=micro).batches(5, 7), 5):
            for micro_batch in batch.micro_batches:
                whole = torch.from_numpy(WINDOWS.take(range(phase * 8, phase * 8 + 8)))
                assert micro_batch.tokens.equal(whole[micro_batch.rows])
                assert list(micro_batch.samples) == [
                    phase * 8 + row for row in range(8)[micro_batch.rows]
                ]
                rows += [(phase, row) for row in range(8)[micro_batch.rows]]
                samples += micro_batch.samples
    assert sorted(rows) == [(phase, row) for phase in (5, 6) for row in range(8)]
    assert sorted(samples) == list(range(40, 56))


def same(left: MicroBatch, right: MicroBatch) -> bool:
    return left.tokens.equal(right.tokens) and (left.rows, left.samples) == (
        right.rows,
        right.samples,
    )


def test_starting_at_a_phase_is_going_on_from_it():
    through = list(loader().batches(0, 9))
    resumed = list(loader().batches(4, 9))
    assert len(resumed) == 5
    for left, right in zip(through[4:], resumed, strict=True):
        for micro_batch, other in zip(left.micro_batches, right.micro_batches, strict=True):
            assert same(micro_batch, other)


def test_no_phases_give_no_batches():
    assert list(loader().batches(3, 3)) == []


@pytest.mark.parametrize("prefetch", [1, 4])
def test_an_error_of_the_reading_thread_surfaces_at_the_batch_where_it_happened(prefetch):
    batches = loader(windows=Broken(2 * GLOBAL_BATCH), prefetch=prefetch).batches(0, 6)
    assert [len(batch.micro_batches) for batch in islice(batches, 2)] == [4, 4]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def close(batches: Iterator[Batch]) -> None:
    batches.close()


def fail(batches: Iterator[Batch]) -> None:
    with pytest.raises(RuntimeError, match="in training"):
        batches.throw(RuntimeError("in training"))


@pytest.mark.parametrize("abandon", [close, fail])
@pytest.mark.parametrize("prefetch", [1, 3])
def test_the_thread_ends_when_the_loop_is_left(abandon: Callable, prefetch):
    batches = loader(prefetch=prefetch).batches(0, 10_000)
    next(batches)
    assert len(readers()) == 1
    abandon(batches)
    assert not readers()


def test_the_thread_reads_ahead_no_further_than_asked():
    taken = []

    class Counted(Broken):
        def take(self, samples: Sequence[int]) -> np.ndarray:
            taken.append(samples)
            return super().take(samples)

    batches = loader(windows=Counted(10**9), prefetch=2, micro=8).batches(0, 1000)
    next(batches)
    (thread,) = readers()
    # One is used, two wait, one is held by the thread.
    for _ in range(100):
        thread.join(timeout=0.1)
        if len(taken) == 4:
            break
    thread.join(timeout=0.3)
    assert thread.is_alive()
    assert len(taken) == 4
    batches.close()


def test_the_wait_for_a_batch_is_measured():
    slow = threading.Event()

    class Slow(Broken):
        def take(self, samples: Sequence[int]) -> np.ndarray:
            slow.wait(0.3)
            return super().take(samples)

    (batch,) = loader(windows=Slow(10**9), micro=8).batches(0, 1)
    assert batch.wait_s > 0.1
