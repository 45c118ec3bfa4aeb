from pathlib import Path

import numpy as np
import pytest

from idlm_ds.data.index import read_index
from idlm_ds.data.prepared import PreparedRows, heldout_rows, open_prepared, training_rows
from idlm_ds.errors import UserError
from tests.data.letters import LETTERS, PAD, LetterTokenizer
from tests.data.toy import make

KEY = "data.corpus"


def in_memory(count: int, seed: int = 0, pieces: int = 3) -> PreparedRows:
    """Rows that say which they are, in some shards."""
    table = np.repeat(np.arange(count, dtype=np.uint16)[:, None], 4, axis=1)
    shards = np.array_split(table, pieces)
    return PreparedRows(
        [s for s in shards if len(s)], seed, counts=np.array([1, 0, 2]), fingerprint="f"
    )


def test_an_epoch_holds_each_row_once_and_the_next_in_another_order():
    rows = in_memory(50)
    epochs = [rows.take(range(e * 50, e * 50 + 50))[:, 0].tolist() for e in range(4)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_sample_is_a_function_of_its_index_and_the_seed_alone():
    expected = in_memory(50).take(range(300))
    other = in_memory(50, pieces=7)
    for index in reversed(range(0, 300, 7)):
        assert (other.take([index])[0] == expected[index]).all()
    assert (in_memory(50, seed=1).take(range(300)) != expected).any()


def test_one_row_is_enough():
    assert (in_memory(1, pieces=1).take(range(5)) == 0).all()


@pytest.fixture
def folder(tmp_path) -> Path:
    texts = [c * 20 for c in LETTERS[:24]]
    make(tmp_path, texts, length=8)
    return tmp_path


def opened(folder: Path, **asked) -> PreparedRows:
    tokenizer = asked.pop("tokenizer", LetterTokenizer())
    index = open_prepared(folder, tokenizer, KEY, length=asked.pop("length", 8))
    return training_rows(index, folder, seed=asked.pop("seed", 0))


def test_rows_come_from_disk_as_they_were_written(folder):
    rows = opened(folder)
    index = read_index(folder, KEY)
    assert len(index.splits["train"]) > 1
    raw = [np.fromfile(folder / s.tokens.file, "<u2") for s in index.splits["train"]]
    table = np.concatenate(raw).reshape(-1, 8)
    assert rows.per_epoch == len(table)
    assert (rows.rows(np.arange(len(table))) == table).all()
    assert rows.take([0, 1]).dtype == np.int64
    assert rows.scored([0, 1]) is None
    assert rows.fingerprint == index.fingerprint


def test_it_knows_which_tokens_occur(folder):
    rows = opened(folder)
    taken = set(rows.take(range(rows.per_epoch)).flatten().tolist())
    assert all(rows.holds(token) for token in taken)
    assert not rows.holds(PAD)
    assert not rows.holds(40)
    assert not rows.holds(10**9)


def test_padded_rows_say_what_is_to_be_learned(tmp_path):
    make(tmp_path, ["abc", "defghijkl", "x"] * 6, length=8, pack="pad")
    rows = opened(tmp_path)
    samples = range(3, 3 + 2 * rows.per_epoch)
    scored = rows.scored(samples)
    assert scored is not None
    assert (scored == (rows.take(samples) != PAD)).all()


def test_held_out_rows_are_spread_evenly(folder):
    index = read_index(folder, KEY)
    every = heldout_rows(index, folder, index.rows("heldout"))
    count = len(every)
    assert (heldout_rows(index, folder, 3) == every[np.arange(3) * count // 3]).all()
    assert heldout_rows(index, folder, 0).shape == (0, 8)
    with pytest.raises(UserError, match=f"{count + 1} held-out rows .* has {count}$"):
        heldout_rows(index, folder, count + 1)


def test_another_length_is_refused_naming_both(folder):
    with pytest.raises(UserError, match=r"^data\.length: 9, but .* has rows of 8$"):
        opened(folder, length=9)


def test_another_tokenizer_is_refused_naming_both_hashes(folder):
    other = LetterTokenizer("other")
    hashes = LetterTokenizer().fingerprint[:12], other.fingerprint[:12]
    with pytest.raises(UserError, match=f"tokenizer {hashes[0]}, data.tokenizer .* {hashes[1]}$"):
        opened(folder, tokenizer=other)
