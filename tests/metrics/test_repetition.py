import pytest
import torch

from idlm_ds.metrics.repetition import longest_repeat, longest_run, repeated_ngrams, repeated_tokens

TABLE = torch.tensor(
    [
        [1, 2, 3, 1, 2, 3, 4, 5],  # "1 2 3" twice
        [7, 7, 7, 7, 7, 7, 7, 7],
        [1, 2, 3, 4, 5, 6, 7, 8],
        [1, 2, 1, 2, 1, 9, 9, 9],  # "1 2 1" twice, overlapping
    ]
)


def test_repeated_ngrams_by_hand():
    # Of 7 bigrams: 12 and 23 again; six 77 again; none; 12, 21 and 99 again.
    assert repeated_ngrams(TABLE, 2).tolist() == [2 / 7, 6 / 7, 0, 3 / 7]
    assert repeated_ngrams(TABLE, 3).tolist() == [1 / 6, 5 / 6, 0, 1 / 6]
    assert repeated_ngrams(TABLE, 1).tolist() == [3 / 8, 7 / 8, 0, 5 / 8]


def test_repeated_tokens_by_hand():
    # The second "1 2 3"; all but the first 7; nothing; positions 2 to 4, 6 and 7 of the last.
    assert repeated_tokens(TABLE, 2).tolist() == [3 / 8, 7 / 8, 0, 5 / 8]
    assert repeated_tokens(TABLE, 3).tolist() == [3 / 8, 7 / 8, 0, 3 / 8]
    assert repeated_tokens(TABLE, 8).tolist() == [0, 0, 0, 0]


def test_runs_and_repeats_by_hand():
    assert longest_run(TABLE).tolist() == [1, 8, 1, 3]
    assert longest_repeat(TABLE).tolist() == [3, 7, 0, 3]


def test_a_text_written_twice_repeats_half_of_itself():
    text = torch.arange(40).repeat(2)[None]
    assert repeated_tokens(text, 4).tolist() == [0.5]
    assert longest_repeat(text).tolist() == [40]


@pytest.mark.parametrize("length", [1, 2, 3, 9, 16, 31])
def test_the_longest_repeat_is_what_a_search_finds(length, generator):
    tokens = torch.randint(0, 3, (25, length), generator=generator)
    tokens[0] = 1

    def search(row: list[int]) -> int:
        for n in range(length - 1, 0, -1):
            blocks = [tuple(row[i : i + n]) for i in range(length - n + 1)]
            if len(set(blocks)) < len(blocks):
                return n
        return 0

    assert longest_repeat(tokens).tolist() == [search(row) for row in tokens.tolist()]


def test_no_figure_depends_on_the_other_sequences(generator):
    tokens = torch.randint(0, 4, (6, 20), generator=generator)
    for measure in (repeated_ngrams, repeated_tokens, longest_run, longest_repeat):
        alone = [measure(row[None]).item() for row in tokens]
        assert measure(tokens).tolist() == alone


def test_ngrams_longer_than_the_text_are_refused():
    with pytest.raises(ValueError, match=r"n=9 is not in 1\.\.8"):
        repeated_ngrams(TABLE, 9)
    with pytest.raises(ValueError, match=r"n=0 is not in 1\.\.8"):
        repeated_tokens(TABLE, 0)
