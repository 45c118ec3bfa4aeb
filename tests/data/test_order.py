"""No sample lost, none repeated: for any data, ranks, batch and interruptions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idlm_ds.data.loader import Loader, MicroBatch
from idlm_ds.data.prepared import PreparedRows
from idlm_ds.data.rows import Rows
from idlm_ds.data.windows import Windows
from tests.data.toy import cases

LENGTH = 3


def prepared(count: int, seed: int) -> PreparedRows:
    table = np.repeat(np.arange(count, dtype=np.uint32)[:, None], LENGTH, axis=1)
    return PreparedRows(
        np.array_split(table, min(count, 3)), seed, counts=np.empty(0, np.int64), fingerprint=""
    )


def windows(count: int, seed: int) -> Windows:
    return Windows(np.arange(LENGTH * (count + 1), dtype=np.int32), LENGTH, seed)


def loader(rows: Rows, *, batch: int, micro: int, rank: int, world: int) -> Loader:
    return Loader(
        rows,
        global_batch=batch,
        micro_batch=micro,
        rank=rank,
        world=world,
        device=torch.device("cpu"),
        prefetch=2,
    )


def together(ranks: list[list[MicroBatch]], batch: int) -> list[list[int]]:
    """What all ranks hold of a global batch, in the order of its rows."""
    whole: list[list[int]] = [[] for _ in range(batch)]
    for micro_batch in (micro_batch for rank in ranks for micro_batch in rank):
        for row, tokens in zip(
            range(batch)[micro_batch.rows], micro_batch.tokens.tolist(), strict=True
        ):
            assert not whole[row]
            whole[row] = tokens
    return whole


SHAPES = st.tuples(st.sampled_from([1, 2, 4, 8]), st.integers(1, 2), st.integers(1, 2))
"""Ranks, sequences a rank and pass, passes."""


@cases(1800)
@given(
    count=st.integers(1, 60),
    seed=st.integers(0, 9),
    shape=SHAPES,
    stop=st.integers(1, 4),
    interruptions=st.lists(st.integers(0, 4), max_size=3),
    make=st.sampled_from([prepared, windows]),
)
def test_interrupted_runs_see_what_one_run_sees(count, seed, shape, stop, interruptions, make):
    world, micro, passes = shape
    batch = world * micro * passes
    edges = [0, *sorted(min(i, stop) for i in interruptions), stop]
    got = []
    for start, end in zip(edges, edges[1:], strict=False):
        # Each run opens its data and its loaders anew, on any number of ranks.
        rows = make(count, seed)
        ranks = [
            loader(rows, batch=batch, micro=micro, rank=rank, world=world) for rank in range(world)
        ]
        got += [
            together([rank.read(phase) for rank in ranks], batch) for phase in range(start, end)
        ]
    whole = make(count, seed).take(range(stop * batch)).tolist()
    assert [row for global_batch in got for row in global_batch] == whole
    for epoch in range(len(whole) // count):
        assert len({tuple(row) for row in whole[epoch * count : (epoch + 1) * count]}) == count


@cases(300)
@given(count=st.integers(1, 100), seed=st.integers(0, 9), phase=st.integers(0, 40))
def test_one_two_four_and_eight_ranks_see_the_same_global_batch(count, seed, phase):
    rows = prepared(count, seed)
    seen = []
    for world in (1, 2, 4, 8):
        ranks = [loader(rows, batch=8, micro=1, rank=rank, world=world) for rank in range(world)]
        seen.append(together([rank.read(phase) for rank in ranks], 8))
    assert seen == [rows.take(range(phase * 8, phase * 8 + 8)).tolist()] * 4


@cases(60)
@given(count=st.integers(1, 60), interruptions=st.lists(st.integers(0, 9), max_size=3))
def test_reading_ahead_changes_nothing(count, interruptions):
    edges = [0, *sorted(interruptions), 9]
    for start, end in zip(edges, edges[1:], strict=False):
        reader = loader(prepared(count, 0), batch=4, micro=2, rank=0, world=2)
        for phase, batch in enumerate(reader.batches(start, end), start=start):
            for micro_batch, other in zip(batch.micro_batches, reader.read(phase), strict=True):
                assert micro_batch.tokens.equal(other.tokens)
                assert list(micro_batch.samples) == list(other.samples)


@cases(100)
@given(count=st.integers(1, 10**12), sample=st.integers(0, 10**12), seed=st.integers(0, 99))
def test_data_of_any_size_takes_no_memory_to_shuffle(count, sample, seed):
    rows = prepared(2, seed)
    rows._starts = np.array([0, count])
    edge = sample - sample % count + count
    order = rows.order(range(edge - 2, edge + 2))
    assert ((order >= 0) & (order < count)).all()
    assert order.tolist() == [int(rows.order([i])[0]) for i in range(edge - 2, edge + 2)]
    if count > 1:
        assert order[0] != order[1]
        assert order[2] != order[3]


@pytest.mark.parametrize("world", [1, 2])
def test_masks_travel_with_their_rows(world):
    table = np.tile(np.arange(5, dtype=np.uint16), (12, 1))
    spans = np.stack([np.arange(12) % 3, 3 + np.arange(12) % 3], 1).astype(np.uint32)
    counts = np.empty(0, np.int64)
    rows = PreparedRows([table], 0, spans=[spans], counts=counts, fingerprint="")
    for rank in range(world):
        reader = loader(rows, batch=4, micro=2, rank=rank, world=world)
        for batch in reader.batches(0, 6):
            for micro_batch in batch.micro_batches:
                assert micro_batch.scored is not None
                assert micro_batch.scored.dtype == torch.bool
                first, stop = spans[rows.order(micro_batch.samples)].T[:, :, None]
                position = np.arange(5)
                expected = (first <= position) & (position < stop)
                assert (micro_batch.scored.numpy() == expected).all()
