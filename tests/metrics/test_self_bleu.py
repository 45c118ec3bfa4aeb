import math
from collections import Counter

import pytest
import torch

from idlm_ds.metrics.self_bleu import self_bleu


def by_hand(rows: list[list[int]], order: int) -> list[float]:
    """Every pair compared."""

    def grams(row: list[int], n: int) -> Counter[tuple[int, ...]]:
        return Counter(tuple(row[i : i + n]) for i in range(len(row) - n + 1))

    values = []
    for i, row in enumerate(rows):
        logs = 0.0
        for n in range(1, order + 1):
            others = [grams(other, n) for j, other in enumerate(rows) if j != i]
            own = grams(row, n)
            clipped = sum(min(c, max(o[gram] for o in others)) for gram, c in own.items())
            logs += math.log(max(clipped, 0.1) / own.total())
        values.append(math.exp(logs / order))
    return values


@pytest.mark.parametrize("order", [1, 2, 4])
def test_it_is_bleu_against_all_others(order, generator):
    tokens = torch.randint(0, 5, (7, 12), generator=generator)
    got = self_bleu(tokens, order=order)
    assert got.dtype == torch.float64
    assert got.tolist() == pytest.approx(by_hand(tokens.tolist(), order), rel=1e-12)


def test_copies_give_one_and_strangers_next_to_nothing():
    assert self_bleu(torch.arange(9).repeat(3, 1)).tolist() == pytest.approx([1.0] * 3)
    strangers = self_bleu(torch.arange(18).view(2, 9))
    nothing = (0.1**4 / (9 * 8 * 7 * 6)) ** 0.25
    assert strangers.tolist() == pytest.approx([nothing] * 2)


def test_a_large_set_is_cut_by_seed(generator):
    tokens = torch.randint(0, 5, (30, 8), generator=generator)
    chosen = self_bleu(tokens, limit=10, seed=1)
    assert len(chosen) == 10
    assert chosen.equal(self_bleu(tokens, limit=10, seed=1))
    assert not chosen.equal(self_bleu(tokens, limit=10, seed=2))
    assert len(self_bleu(tokens, limit=30)) == 30


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="1 sequences of 9"):
        self_bleu(torch.zeros(1, 9, dtype=torch.long))
    with pytest.raises(ValueError, match="2 sequences of 3; allowed: 2 or more of 4"):
        self_bleu(torch.zeros(2, 3, dtype=torch.long))
