import math

import pytest
import torch

from idlm_ds.metrics.accumulate import PerplexityAccumulator
from idlm_ds.metrics.likelihood import Likelihood, measure_likelihood
from idlm_ds.noise import Noise, derive_seed, stratified_times
from idlm_ds.objectives.pretrain import Nelbo, NextToken
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.schedules.loglinear import LogLinear
from tests.heads import ScoresOf

from ..tolerances import within_standard_errors

V, MASK = 6, 5


class Bigram:
    """A network whose answer at a position is a function of the token there."""

    def __init__(self, table):
        self.table = table
        self.calls = 0

    def __call__(self, x, sigma, read, /):
        self.calls += 1
        return read(ScoresOf(lambda positions: self.table[x.flatten()[positions]]))


class Recorded:
    """An objective that costs a window its first token in nats, and notes the times."""

    def __init__(self):
        self.times = {}

    def loss(self, model, tokens, t, *, noise):
        raise NotImplementedError("likelihoods are measured by sequence")

    def sequence_nats(self, model, tokens, t, *, noise):
        for window, time in zip(tokens[:, 1].tolist(), t.tolist(), strict=True):
            self.times.setdefault(window, []).append(time)
        return tokens[:, 0].double()

    def num_scored(self, length):
        return length - 1


@pytest.fixture
def nelbo():
    return Nelbo(MDLM(vocab_size=V, schedule=LogLinear(eps=1e-3), mask_id=MASK))


@pytest.fixture
def network(generator):
    return Bigram(torch.randn(V, V, generator=generator, dtype=torch.float64))


@pytest.fixture
def windows(generator):
    return torch.randint(0, MASK, (11, 16), generator=generator)


def test_all_units_by_hand():
    windows = torch.tensor([[2, 0, 9], [4, 1, 9], [9, 2, 9]])
    estimate = Likelihood.of(measure_likelihood(Recorded(), Bigram(None), windows, batch=2))
    # 15 nats of 6 tokens; residuals 2 - 5, 4 - 5, 9 - 5.
    se = math.sqrt(3 / 2 * (9 + 1 + 16)) / 6
    assert (estimate.nats.value, estimate.nats.se, estimate.nats.count) == (
        2.5,
        pytest.approx(se),
        3,
    )
    assert estimate.bits.value == pytest.approx(2.5 / math.log(2))
    assert estimate.bits.se == pytest.approx(se / math.log(2))
    assert estimate.ppl.value == pytest.approx(math.exp(2.5))
    assert estimate.ppl.se == pytest.approx(math.exp(2.5) * se)


@pytest.mark.parametrize(("draws", "t_min"), [(1, 0.0), (4, 0.0), (4, 0.25)])
def test_times_are_stratified_over_windows_and_draws(draws, t_min):
    windows = torch.tensor([[0, i, 0] for i in range(5)])
    seen = Recorded()
    measure_likelihood(seen, Bigram(None), windows, batch=2, draws=draws, t_min=t_min)
    unit = {i: [(t - t_min) / (1 - t_min) for t in times] for i, times in seen.times.items()}
    strata = [int(t * 5 * draws) for times in unit.values() for t in times]
    assert sorted(strata) == list(range(5 * draws))
    for times in unit.values():
        assert [b - a for a, b in zip(times, times[1:], strict=False)] == pytest.approx(
            [1 / draws] * (draws - 1)
        )


@pytest.mark.parametrize("batch", [1, 3, 4, 100])
def test_the_figure_does_not_depend_on_the_batch_nor_on_the_split(nelbo, network, windows, batch):
    whole = measure_likelihood(nelbo, network, windows, batch=11, draws=3)
    again = measure_likelihood(nelbo, network, windows, batch=batch, draws=3)
    torch.testing.assert_close(again.sums, whole.sums, rtol=1e-10, atol=0)
    merged = PerplexityAccumulator()
    for rank in range(3):
        rows = range(rank, 11, 3)
        merged.merge(measure_likelihood(nelbo, network, windows, batch=batch, draws=3, rows=rows))
    torch.testing.assert_close(merged.sums, whole.sums, rtol=1e-10, atol=0)


def test_a_window_costs_the_same_whatever_stands_beside_it(nelbo, network, windows):
    other = windows.clone()
    other[1:] = 0
    first, second = (
        measure_likelihood(nelbo, network, given, batch=4, rows=[0]).sums
        for given in (windows, other)
    )
    assert first.equal(second)


def test_idle_ranks_call_the_network_as_often_as_busy_ones(nelbo, network, windows):
    seen = measure_likelihood(nelbo, network, windows, batch=2, draws=3, rows=[4], num_batches=5)
    assert network.calls == 15
    assert seen.sums[0] == 1
    assert measure_likelihood(nelbo, network, windows, batch=2, rows=[], num_batches=2).sums[0] == 0


def test_one_draw_is_the_objective_at_its_own_times(nelbo, network, windows):
    seed = 3
    whole = measure_likelihood(nelbo, network, windows, batch=4, seed=seed, t_min=0.0)
    times = stratified_times(seed, "validation", count=11, t_min=0.0)
    noise = Noise([derive_seed(seed, "validation", i) for i in range(11)])
    nats = nelbo.nats(network, windows, times, noise=noise)[0]
    assert whole.rate().value == pytest.approx(nats.sum().item() / windows.numel(), rel=1e-12)


def test_the_uniform_answer_costs_the_log_of_the_vocabulary(nelbo, generator):
    windows = torch.randint(0, MASK, (300, 20), generator=generator)
    uniform = Bigram(torch.zeros(V, V))
    estimate = measure_likelihood(nelbo, uniform, windows, batch=300, draws=8).rate()
    # The schedule stops at 1 - eps.
    assert within_standard_errors(estimate.value, 0.999 * math.log(V - 1), estimate.se)
    single_draw = measure_likelihood(nelbo, uniform, windows, batch=300).rate()
    assert estimate.se < 0.7 * single_draw.se


def test_an_autoregressive_network_is_measured_by_the_same_function(windows):
    estimate = measure_likelihood(NextToken(), Bigram(torch.zeros(V, V)), windows, batch=4)
    assert estimate.rate().value == pytest.approx(math.log(V), rel=1e-6)
    assert estimate.sums[2] == 11 * 15
