from collections.abc import Sequence

import numpy as np
import pytest

from idlm_ds.data.corpus import Document
from idlm_ds.data.windows import Windows, in_order, pack

LENGTH, SIZE = 8, 8 * 25 + 3
STREAM = np.arange(SIZE, dtype=np.int32)
"""Every token is its own position, so a window shows where it was cut."""


def windows(seed: int = 0) -> Windows:
    return Windows(STREAM, LENGTH, seed)


def epoch(source: Windows, number: int) -> np.ndarray:
    count = source.per_epoch
    return source.take(range(number * count, (number + 1) * count))


class Letters:
    eos_id = 0

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(letter) - 96 for letter in text] for text in texts]


def test_packed_documents_each_end_with_the_end_of_text():
    packed = pack([Document("x", "abc"), Document("y", ""), Document("z", "ba")], Letters())
    assert packed.tolist() == [1, 2, 3, 0, 0, 2, 1, 0]
    assert packed.dtype == np.int32


@pytest.mark.parametrize("number", [0, 1, 2, 7])
def test_an_epoch_holds_each_of_its_windows_once(number):
    source = windows()
    starts = epoch(source, number)[:, 0]
    assert source.per_epoch == 24
    offset = starts.min()
    assert 0 <= offset < LENGTH
    assert sorted(starts) == [offset + LENGTH * i for i in range(24)]
    assert sorted(starts) != list(starts)


def test_a_window_is_a_piece_of_the_stream():
    taken = windows().take(range(100))
    assert taken.dtype == np.int64
    assert (np.diff(taken, axis=1) == 1).all()
    assert taken.min() >= 0
    assert taken.max() < SIZE


def test_epochs_differ_in_order_and_in_where_they_cut():
    source = windows()
    starts = [epoch(source, number)[:, 0] for number in range(12)]
    assert len({tuple(s) for s in starts}) == 12
    orders = {tuple((s - s.min()) // LENGTH) for s in starts}
    assert len(orders) == 12
    assert len({int(s.min()) for s in starts}) > 3


def test_a_sample_is_a_function_of_its_index_and_the_seed():
    expected = windows().take(range(300))
    source = windows()
    # Backwards, across more epochs than are remembered, and one at a time.
    for index in reversed(range(0, 300, 7)):
        assert (source.take([index])[0] == expected[index]).all()
    assert (source.take([5, 250, 5, 0]) == expected[[5, 250, 5, 0]]).all()
    assert (windows(seed=1).take(range(300)) != expected).any()


def test_two_streams_of_one_size_do_not_see_each_other():
    first = windows().take(range(30))
    other = Windows(STREAM[::-1].copy(), LENGTH, 0).take(range(30))
    assert (other == SIZE - 1 - first).all()


def test_the_smallest_corpus_has_one_window_and_a_smaller_one_is_refused():
    least = Windows(STREAM[: 2 * LENGTH], LENGTH, 0)
    assert least.per_epoch == 1
    assert least.take(range(40)).shape == (40, LENGTH)
    with pytest.raises(ValueError, match=r"data\.length: 8 needs 16 tokens of text, .* has 15"):
        Windows(STREAM[: 2 * LENGTH - 1], LENGTH, 0)


def test_other_tokens_have_another_fingerprint():
    changed = STREAM.copy()
    changed[-1] += 1
    assert windows().fingerprint == windows(seed=5).fingerprint
    assert Windows(changed, LENGTH, 0).fingerprint != windows().fingerprint


def test_held_out_windows_are_spread_evenly_and_do_not_overlap():
    assert in_order(STREAM, LENGTH, 5)[:, 0].tolist() == [0, 40, 80, 120, 160]
    assert in_order(STREAM, LENGTH, 4)[:, 0].tolist() == [0, 48, 96, 144]
    every = in_order(STREAM, LENGTH, 25)
    assert every.flatten().tolist() == list(range(200))
    assert every.dtype == np.int64


def test_more_held_out_windows_than_there_are_is_refused():
    with pytest.raises(ValueError, match="26 held-out windows of 8 tokens .* there are 25"):
        in_order(STREAM, LENGTH, 26)
