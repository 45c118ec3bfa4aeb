import math

import pytest
import torch

from idlm_ds.metrics.entropy import distinct_ngrams, distinct_pseudovalues, unigram_entropy


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


def test_pseudovalues_are_what_a_set_loses_without_a_sequence(generator):
    tokens = torch.randint(6, (7, 5), generator=generator)
    share = distinct_ngrams(tokens)
    without = [distinct_ngrams(torch.cat([tokens[:i], tokens[i + 1 :]])) for i in range(7)]
    jackknife = 7 * share - 6 * torch.tensor(without, dtype=torch.float64)
    values = distinct_pseudovalues(tokens)
    torch.testing.assert_close(values - values.mean(), jackknife - jackknife.mean())
    assert values.mean().item() == pytest.approx(share, abs=1e-12)


def test_pseudovalues_of_one_sequence_and_of_equal_ones_are_the_share(generator):
    one = torch.randint(3, (1, 9), generator=generator)
    for tokens in (one, one.expand(4, -1)):
        expected = torch.full((len(tokens),), distinct_ngrams(tokens)).double()
        torch.testing.assert_close(distinct_pseudovalues(tokens), expected)


def test_pseudovalues_give_the_error_of_the_share_at_most_a_third_too_large(generator):
    sets = [(torch.rand(64, 20, generator=generator) ** 3 * 300).long() for _ in range(200)]
    true = torch.tensor([distinct_ngrams(tokens) for tokens in sets]).std().item()
    errors = [distinct_pseudovalues(tokens).std().item() / 64**0.5 for tokens in sets]
    assert 1.0 < sum(errors) / len(errors) / true < 4 / 3
