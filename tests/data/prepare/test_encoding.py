"""Many processes, one result; and a process that dies."""

import os
from collections.abc import Sequence

import numpy as np
import pytest

from idlm_ds.data.prepare.encoding import TextEncoder, encode_all
from idlm_ds.errors import UserError
from tests.data.letters import LETTERS, LetterEncoder


class Dying(LetterEncoder):
    """Ends its process at the sight of a letter, the way a lack of memory does."""

    is_wordwise = False

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        if "z" in texts:
            os._exit(9)
        return super().encode(texts)


def test_groups_come_out_as_they_went_in():
    groups = [[LETTERS[i % 20 :], "", LETTERS[: i % 7]] for i in range(30)]
    encoder = TextEncoder(LetterEncoder(), "<u2")
    alone, together = (list(encode_all(encoder, groups, workers=n)) for n in (1, 2))
    for left, right, texts in zip(alone, together, groups, strict=True):
        assert (left.tokens == right.tokens).all()
        assert left.lengths.tolist() == right.lengths.tolist() == [len(text) for text in texts]
        assert left.tokens.dtype == right.tokens.dtype == np.dtype("<u2")


def test_few_groups_are_held_at_a_time():
    taken = []

    def groups():
        for i in range(40):
            taken.append(i)
            yield ["abc"]

    results = encode_all(TextEncoder(LetterEncoder(), "<u2"), groups(), workers=2)
    next(results)
    assert len(taken) <= 5
    results.close()


def test_a_worker_that_dies_is_one_line():
    groups = [["a"], ["z"], ["b"]]
    with pytest.raises(UserError, match=r"^--workers: one of them died, .* last finished shard$"):
        list(encode_all(TextEncoder(Dying(), "<u2"), groups, workers=2))


def test_texts_are_put_together_before_they_are_encoded():
    encoder = TextEncoder(LetterEncoder(), "<u4", "lm1b")
    assert encoder.encode(["a , b"]).lengths.tolist() == [len("a b")]
