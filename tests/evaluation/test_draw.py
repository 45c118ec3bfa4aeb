"""Sets drawn in batches and over ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Barrier, Thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from idlm_ds.evaluation.draw import Drawn, SingleProcess, draw_set

CPU = torch.device("cpu")


@dataclass(frozen=True)
class ThreadRank:
    """A rank that is a thread."""

    rank: int
    values: list[Any]
    barrier: Barrier
    device: torch.device = CPU

    @property
    def size(self) -> int:
        return len(self.values)

    def gather(self, value: Any) -> list[Any]:
        self.values[self.rank] = value
        self.barrier.wait()
        return list(self.values)


def sampled(indices: Sequence[int]) -> SimpleNamespace:
    """Sample i is three tokens i, after i + 1 calls."""
    tokens = torch.tensor(indices)[:, None].repeat(1, 3)
    return SimpleNamespace(tokens=tokens, evaluations=torch.tensor(indices) + 1)


def assert_whole(drawn: Drawn, num_samples: int) -> None:
    assert drawn.tokens.tolist() == [[i] * 3 for i in range(num_samples)]
    assert drawn.evaluations.tolist() == [i + 1 for i in range(num_samples)]
    assert drawn.nfe == (num_samples + 1) / 2


@pytest.mark.parametrize("batch", [1, 2, 7, 100])
def test_any_batch_draws_the_same_set(batch):
    counts: list[int] = []
    drawn = draw_set(sampled, 7, batch=batch, ranks=SingleProcess(CPU), progress=counts.append)
    assert_whole(drawn, 7)
    assert sum(counts) == 7
    assert max(counts) <= batch
    assert drawn.seconds >= 0


@pytest.mark.parametrize(("num_samples", "size"), [(7, 2), (5, 4), (2, 3)])
def test_ranks_draw_equally_often_and_all_get_the_whole_set(num_samples, size):
    values, barrier, calls = [None] * size, Barrier(size, timeout=20), [0] * size
    results: dict[int, Drawn] = {}
    sizes: list[int] = []

    def run(rank: int) -> None:
        def draw(indices: Sequence[int]) -> SimpleNamespace:
            calls[rank] += 1
            sizes.append(len(indices))
            return sampled(indices)

        ranks = ThreadRank(rank, values, barrier)
        results[rank] = draw_set(draw, num_samples, batch=2, ranks=ranks)

    threads = [Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == size
    for drawn in results.values():
        assert_whole(drawn, num_samples)
    assert len(set(calls)) == 1
    assert min(sizes) == 1, "a network is never called with nothing"
