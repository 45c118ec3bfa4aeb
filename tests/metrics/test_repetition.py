import pytest
import torch

from idlm_ds.metrics.repetition import repeated_tokens

TABLE = torch.tensor(
    [
        [1, 2, 3, 1, 2, 3, 4, 5],  # "1 2 3" twice
        [7, 7, 7, 7, 7, 7, 7, 7],
        [1, 2, 3, 4, 5, 6, 7, 8],
        [1, 2, 1, 2, 1, 9, 9, 9],  # "1 2 1" twice, overlapping
    ]
)


def test_repeated_tokens_by_hand():
    # The second "1 2 3"; all but the first 7; nothing; positions 2 to 4, 6 and 7 of the last.
    assert repeated_tokens(TABLE, 2).tolist() == [3 / 8, 7 / 8, 0, 5 / 8]
    assert repeated_tokens(TABLE, 3).tolist() == [3 / 8, 7 / 8, 0, 3 / 8]
    assert repeated_tokens(TABLE, 8).tolist() == [0, 0, 0, 0]


def test_a_text_written_twice_repeats_half_of_itself():
    text = torch.arange(40).repeat(2)[None]
    assert repeated_tokens(text, 4).tolist() == [0.5]


def test_no_figure_depends_on_the_other_sequences(generator):
    tokens = torch.randint(0, 4, (6, 20), generator=generator)
    alone = [repeated_tokens(row[None]).item() for row in tokens]
    assert repeated_tokens(tokens).tolist() == alone


def test_ngrams_longer_than_the_text_are_refused():
    with pytest.raises(ValueError, match=r"n=9 is not in 1\.\.8"):
        repeated_tokens(TABLE, 9)
    with pytest.raises(ValueError, match=r"n=0 is not in 1\.\.8"):
        repeated_tokens(TABLE, 0)
