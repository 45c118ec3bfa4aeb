import math

import pytest
import torch

from idlm_ds.metrics.entropy import distinct_ngrams, unigram_entropy


def test_entropy_of_constant_and_of_all_different_sequences():
    tokens = torch.stack([torch.full((64,), 7), torch.randperm(64), torch.arange(64) // 32])
    expected = torch.tensor([0.0, math.log(64), math.log(2)], dtype=torch.float64)
    torch.testing.assert_close(unigram_entropy(tokens), expected, rtol=0, atol=1e-12)


def test_entropy_equals_the_definition_on_skewed_tokens():
    generator = torch.Generator().manual_seed(0)
    tokens = (torch.rand(5, 200, generator=generator) ** 3 * 50).long()
    for row, got in zip(tokens.tolist(), unigram_entropy(tokens).tolist(), strict=True):
        shares = [row.count(token) / len(row) for token in set(row)]
        assert got == pytest.approx(-sum(p * math.log(p) for p in shares), abs=1e-12)


def test_entropy_ignores_order():
    tokens = torch.tensor([[1, 2, 2, 3, 1, 1], [1, 1, 1, 2, 2, 3]])
    first, second = unigram_entropy(tokens).tolist()
    assert first == second


def test_distinct_ngrams_by_hand():
    # Bigrams: (0,1) (1,0) (0,1) and (1,0) (0,1) (1,2): three different of six.
    tokens = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 2]])
    assert distinct_ngrams(tokens) == 3 / 6
    assert distinct_ngrams(tokens, n=1) == 3 / 8
    assert distinct_ngrams(tokens, n=4) == 1.0


def test_ngrams_do_not_cross_sequences():
    assert distinct_ngrams(torch.tensor([[0, 0], [1, 1]])) == 1.0
    assert distinct_ngrams(torch.tensor([[0, 0], [0, 0]])) == 0.5


def test_bad_lengths_are_refused():
    with pytest.raises(ValueError, match="length 0"):
        unigram_entropy(torch.zeros(2, 0, dtype=torch.long))
    with pytest.raises(ValueError, match="n=3 is not in"):
        distinct_ngrams(torch.zeros(2, 2, dtype=torch.long), n=3)
