import math

import pytest
import torch

from idlm_ds.metrics.accumulate import MeanAccumulator, PerplexityAccumulator


def corpus(size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(20, 400, (size,), generator=generator)
    rate = 3.0 + 0.6 * torch.randn(size, generator=generator, dtype=torch.float64)
    return rate * tokens, tokens


def perplexity_of(nats: torch.Tensor, tokens: torch.Tensor) -> PerplexityAccumulator:
    accumulator = PerplexityAccumulator()
    accumulator.update(nats, tokens)
    return accumulator


def test_mean_and_its_standard_error_by_hand():
    accumulator = MeanAccumulator()
    accumulator.update(torch.tensor([1.0, 2.0]))
    accumulator.update(torch.tensor([6.0]))
    estimate = accumulator.compute()
    assert estimate.value == 3.0
    assert estimate.se == pytest.approx(math.sqrt(7.0 / 3.0), abs=1e-12)
    assert estimate.count == 3


def test_mean_of_merged_parts_is_the_mean_of_one_pass():
    values, _ = corpus(101)
    whole, left, right = MeanAccumulator(), MeanAccumulator(), MeanAccumulator()
    whole.update(values)
    left.update(values[:17])
    right.update(values[17:])
    left.merge(right)
    expected, got = whole.compute(), left.compute()
    assert got.value == pytest.approx(expected.value, rel=1e-12)
    assert got.se == pytest.approx(expected.se, rel=1e-12)
    assert got.count == expected.count


def test_perplexity_weighs_tokens_not_sequences():
    nats = torch.tensor([10.0, 300.0], dtype=torch.float64)
    estimate = perplexity_of(nats, torch.tensor([10, 100])).compute()
    assert estimate.value == pytest.approx(math.exp(310 / 110), rel=1e-12)


def test_perplexity_of_one_rate_everywhere_has_no_error():
    tokens = torch.tensor([3, 70, 11, 500])
    estimate = perplexity_of(math.log(50) * tokens.double(), tokens).compute()
    assert estimate.value == pytest.approx(50, rel=1e-12)
    assert estimate.se == pytest.approx(0, abs=1e-6)


def test_perplexity_error_agrees_with_the_bootstrap():
    nats, tokens = corpus(400)
    estimate = perplexity_of(nats, tokens).compute()
    generator = torch.Generator().manual_seed(1)
    picks = torch.randint(0, 400, (4000, 400), generator=generator)
    replicas = (nats[picks].sum(1) / tokens[picks].sum(1)).exp()
    # 4000 replicas know their own spread to about 1.1 %.
    assert estimate.se == pytest.approx(replicas.std().item(), rel=0.05)


@pytest.mark.parametrize("cuts", [[1], [1, 2, 3], [50, 51], [0, 100]])
def test_perplexity_of_merged_parts_is_that_of_one_pass(cuts):
    nats, tokens = corpus(101)
    expected = perplexity_of(nats, tokens).compute()
    merged = PerplexityAccumulator()
    edges = [0, *cuts, 101]
    for start, stop in zip(edges, edges[1:], strict=False):
        merged.merge(perplexity_of(nats[start:stop], tokens[start:stop]))
    got = merged.compute()
    assert got.value == pytest.approx(expected.value, rel=1e-12)
    assert got.se == pytest.approx(expected.se, rel=1e-10)
    assert got.count == expected.count


def test_sums_added_over_ranks_rebuild_the_accumulator():
    nats, tokens = corpus(20)
    parts = [perplexity_of(nats[:5], tokens[:5]), perplexity_of(nats[5:], tokens[5:])]
    rebuilt = PerplexityAccumulator(sum(part.sums for part in parts))
    expected = perplexity_of(nats, tokens).compute()
    assert rebuilt.compute().value == pytest.approx(expected.value, rel=1e-12)
    means = MeanAccumulator(torch.tensor([2.0, 4.0, 10.0], dtype=torch.float64))
    assert means.compute().value == 2.0
    assert means.compute().se == pytest.approx(1.0)


def test_one_sequence_has_a_value_and_no_known_error():
    estimate = perplexity_of(torch.tensor([5.0], dtype=torch.float64), torch.tensor([5])).compute()
    assert estimate.value == pytest.approx(math.e)
    assert math.isnan(estimate.se)


def test_nothing_seen_and_bad_values_are_refused():
    with pytest.raises(ValueError, match="before any update"):
        MeanAccumulator().compute()
    with pytest.raises(ValueError, match="no token was scored"):
        PerplexityAccumulator().compute()
    with pytest.raises(ValueError, match="not finite"):
        MeanAccumulator().update(torch.tensor([math.nan]))
    with pytest.raises(ValueError, match="not finite"):
        perplexity_of(torch.tensor([math.inf], dtype=torch.float64), torch.tensor([1]))
