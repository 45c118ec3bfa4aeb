import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.udlm import UDLM
from idlm_ds.processes.uniform import Uniform
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.schedules.cosine import Cosine
from idlm_ds.schedules.gaussian import GaussianClock, GaussianMap
from idlm_ds.schedules.geometric import Geometric
from idlm_ds.schedules.loglinear import LogLinear

from ..heads import answering
from ..tolerances import assert_close, assert_frequencies, within_standard_errors

V = 4
ANSWER = torch.tensor([0.1, 0.55, 0.05, 0.3], dtype=torch.float64)
STEPS = [(0.9, 0.4), (0.5, 0.0), (1.0, 0.9), (0.3, 0.27)]
PROCESSES = {
    "UDLM": UDLM(V, LogLinear()),
    "UDLM on a cosine": UDLM(V, Cosine(eps=0.01)),
    # Leaves noise at t=0, which the last step has to remove.
    "UDLM, geometric": UDLM(V, Geometric(0.05, 5.0)),
    # Trained on a clock that leaves out both ends, sampled on a schedule that does not.
    "Duo": Duo(V, LogLinear(), GaussianClock(GaussianMap(V), -1.0, 1.0)),
}


@pytest.fixture(params=PROCESSES.values(), ids=PROCESSES.keys())
def process(request) -> Uniform:
    return request.param


def times(*values: float, batch: int = 1) -> list[Tensor]:
    return [torch.full((batch,), u, dtype=torch.float64) for u in values]


def kernel(alpha: float) -> Tensor:
    """Transition matrix of uniform noise, from row to column."""
    return alpha * torch.eye(V).double() + (1 - alpha) / V


def alphas(process: Uniform, t: float, s: float) -> tuple[float, float]:
    alpha_t = process.schedule.at(*times(t)).alpha.item()
    return alpha_t, process.schedule.at(*times(s)).alpha.item() if s > 0 else 1.0


def bayes(process: Uniform, prior: Tensor, t: float, s: float) -> Tensor:
    """Row i: the distribution of x_s given x_t = i, when the clean word has this prior."""
    alpha_t, alpha_s = alphas(process, t, s)
    joint = (prior @ kernel(alpha_s))[:, None] * kernel(alpha_t / alpha_s)
    return (joint / joint.sum(0)).T


def reverse_rows(process: Uniform, raw: Tensor, t: float, s: float) -> Tensor:
    """What ``reverse`` says for every hard state; ``raw`` is one row, or one a state."""
    every = torch.arange(V)
    return process.reverse(raw.expand(V, -1), every[None], *times(t, s), every)


@pytest.mark.parametrize(("t", "s"), STEPS)
def test_reverse_is_the_posterior_of_a_word_whose_prior_is_the_answer(process, t, s):
    got = reverse_rows(process, ANSWER.log() + 1.3, t, s)
    assert_close(got, bayes(process, ANSWER, t, s))


@pytest.mark.parametrize(("t", "s"), STEPS)
def test_reverse_of_a_sure_answer_is_the_posterior_given_the_clean_word(process, t, s):
    for word in range(V):
        sure = F.one_hot(torch.tensor(word), V).double()
        got = reverse_rows(process, 1e4 * sure, t, s)
        assert_close(got, bayes(process, sure, t, s))


@pytest.mark.parametrize(("t", "s"), STEPS)
def test_reverse_equals_the_published_form(process, generator, t, s):
    alpha_t, alpha_s = alphas(process, t, s)
    ratio = alpha_t / alpha_s
    raw = 2 * torch.randn(V, V, generator=generator, dtype=torch.float64)
    f, here = raw.softmax(-1), torch.eye(V).double()
    expected = V * alpha_t * f * here + (ratio - alpha_t) * here
    expected += (alpha_s - alpha_t) * f + (1 - ratio) * (1 - alpha_s) / V
    expected /= V * alpha_t * f.diag()[:, None] + 1 - alpha_t
    got = reverse_rows(process, raw, t, s)
    assert_close(got, expected)
    assert_close(got.sum(-1), torch.ones(V).double())


def test_reverse_is_not_the_average_of_posteriors_over_the_answer(process):
    """The answer is what the other positions say of the word; here its own state is weighed in."""
    sure = torch.eye(V).double()
    average = sum(p * bayes(process, e, 0.9, 0.4) for p, e in zip(ANSWER, sure, strict=True))
    got = reverse_rows(process, ANSWER.log(), 0.9, 0.4)
    assert (got - average).abs().max() > 0.02


def test_reverse_reads_the_times_and_states_of_the_positions_asked_for(process, generator):
    x_t = torch.randint(0, V, (2, 3), generator=generator)
    raw = torch.randn(6, V, generator=generator, dtype=torch.float64)
    t, s = torch.tensor([0.9, 0.4]).double(), torch.tensor([0.3, 0.1]).double()
    every = process.reverse(raw, x_t, t, s, torch.arange(6))
    some = torch.tensor([1, 3, 5])
    assert_close(process.reverse(raw[some], x_t, t, s, some), every[some])
    for p in range(6):
        row = reverse_rows(process, raw[p], t[p // 3].item(), s[p // 3].item())
        assert_close(every[p], row[x_t.flatten()[p]])


@pytest.mark.parametrize("steps", [1, 3, 40])
def test_a_word_with_no_neighbours_comes_back_exactly_in_any_number_of_steps(process, steps):
    grid = uniform_grid(steps).tolist()
    q = ANSWER @ kernel(alphas(process, 1.0, 0.5)[0])
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        q = q @ reverse_rows(process, ANSWER.log(), t, s)
    assert_close(q, ANSWER)


@pytest.mark.parametrize(("t", "s"), STEPS)
def test_step_draws_exactly_from_reverse(process, generator, t, s):
    """The thinned step, on 240 000 positions, with scores that depend on the state.

    Two sequences walk between different times.
    """
    x_t = torch.randint(0, V, (2, 120_000), generator=generator)
    raw = 1.5 * torch.randn(V, V, generator=generator, dtype=torch.float64)
    here, before = x_t.flatten(), x_t.clone()
    walks = [(t, s), (0.7, 0.2)]
    t_b, s_b = torch.tensor(walks, dtype=torch.float64).T
    x_s = process.step(x_t, t_b, s_b, answering(lambda p: raw[here[p]]), noise=Noise([1, 2]))
    assert x_t.equal(before)
    for row, walk in enumerate(walks):
        rows = reverse_rows(process, raw, *walk)
        for state in range(V):
            counts = x_s[row, x_t[row] == state].bincount(minlength=V)
            assert_frequencies(counts, rows[state])


def test_step_draws_neighbours_independently(process):
    x_t = torch.full((1, 60_000), 2)
    raw = ANSWER.log()
    ask = answering(lambda p: raw.expand(len(p), -1))
    x_s = process.step(x_t, *times(0.9, 0.4), ask, noise=Noise([3]))[0]
    row = reverse_rows(process, raw, 0.9, 0.4)[2]
    pairs = x_s[::2] * V + x_s[1::2]
    assert_frequencies(pairs.bincount(minlength=V * V), torch.outer(row, row))


def test_step_asks_once_and_changes_nothing_it_did_not_ask_about(process):
    x_t = torch.zeros(2, 5000, dtype=torch.long)
    asked = []

    def ask(positions: Tensor) -> Tensor:
        asked.append(positions)
        return torch.zeros(len(positions), V)

    noise = Noise([1, 2])
    x_s = process.step(x_t, *times(0.5, 0.49, batch=2), answering(ask), noise=noise)
    (positions,) = asked
    assert (positions.diff() > 0).all()
    changed = (x_s != x_t).flatten().nonzero()[:, 0]
    assert 0 < len(changed) < len(positions) < 1000
    assert torch.isin(changed, positions).all()
    # A step too short to change anything still calls the network, with nothing to answer.
    process.step(x_t, *times(0.5, 0.5 - 1e-12, batch=2), answering(ask), noise=noise)
    assert [len(p) for p in asked[1:]] == [0]


def asked_at_most(process: Uniform, steps: int) -> float:
    """Expected positions asked about over a run, per position: the sum of the bounds.

    The bound of one step is (alpha_s - alpha_t) / (alpha_s (1 - alpha_t)).
    """
    grid, total = uniform_grid(steps).tolist(), 0.0
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        alpha_t, alpha_s = alphas(process, t, s)
        total += (alpha_s - alpha_t) / (alpha_s * (1 - alpha_t))
    return total


@pytest.mark.parametrize("name", ["UDLM", "Duo"])
def test_a_run_asks_about_few_positions_and_draws_the_word(name):
    process, steps, length = PROCESSES[name], 64, 3000
    count = 0

    def ask(positions: Tensor) -> Tensor:
        nonlocal count
        count += len(positions)
        return ANSWER.log().expand(len(positions), -1)

    noise = Noise([5, 6])
    x = process.prior(2, length, noise=noise)
    grid = uniform_grid(steps).tolist()
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        x = process.step(x, *times(t, s, batch=2), answering(ask), noise=noise)
    expected = asked_at_most(process, steps)
    # Asking is one independent coin a step, so its variance is below its mean.
    assert within_standard_errors(
        count / (2 * length), expected, math.sqrt(expected / (2 * length))
    )
    assert expected < math.log(steps) + 7
    assert_frequencies(x.flatten().bincount(minlength=V), ANSWER)


@pytest.mark.parametrize("steps", [16, 64, 256, 1024, 4096])
def test_positions_asked_about_grow_like_the_logarithm_of_the_steps(steps):
    """The published schedule ends at alpha = 1e-3, which is the 7; the last removal adds 1."""
    expected = asked_at_most(PROCESSES["UDLM"], steps)
    assert math.log(steps) + 4 < expected < math.log(steps) + 8.6


def test_prior_is_uniform_over_all_ids(process):
    x = process.prior(2, 40_000, noise=Noise([1, 2]))
    assert x.shape == (2, 40_000)
    for row in x:
        assert_frequencies(row.bincount(minlength=V), torch.full((V,), 1 / V))
    pairs = x[0] * V + x[1]
    assert_frequencies(pairs.bincount(minlength=V * V), torch.full((V * V,), 1 / V**2))


def test_every_position_stays_undecided(process):
    assert process.undecided(torch.zeros(2, 3, dtype=torch.long)).tolist() == list(range(6))


@pytest.mark.parametrize("vocab_size", [1, 0, -3])
def test_a_vocabulary_without_a_choice_is_refused(vocab_size):
    with pytest.raises(ValueError, match=f"vocab_size must be at least 2, got {vocab_size}"):
        UDLM(vocab_size, LogLinear())
