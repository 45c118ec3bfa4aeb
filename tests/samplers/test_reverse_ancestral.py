"""Ancestral chains of `sample_reverse`: what they draw, and which network calls they make."""

import math

import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Read
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.samplers.reverse import Sampled, sample_reverse
from idlm_ds.samplers.truncation import Truncation
from idlm_ds.schedules.loglinear import LogLinear
from tests.heads import ScoresOf

from ..tolerances import assert_close, assert_frequencies

V, MASK = 4, 3
"""Three words and the mask."""


# (side, what the other side shows, answer); the last answer is the mask, whose score is ignored.
ANSWERS = torch.tensor(
    [
        [[0.7, 0.2, 0.1, 9.0], [0.1, 0.7, 0.2, 9.0], [0.2, 0.1, 0.7, 9.0], [0.5, 0.3, 0.2, 9.0]],
        [[0.2, 0.6, 0.2, 9.0], [0.2, 0.2, 0.6, 9.0], [0.6, 0.3, 0.1, 9.0], [0.2, 0.3, 0.5, 9.0]],
    ],
    dtype=torch.float64,
)


class Pairs:
    """A denoiser of two-position worlds laid side by side in one sequence.

    What it answers at a position depends on what it sees at the other position of the pair.
    """

    def __init__(self) -> None:
        self.table = ANSWERS.log()
        self.sigmas: list[Tensor] = []
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        self.sigmas.append(sigma)
        self.seen.append(x)

        def project(positions: Tensor) -> Tensor:
            other = x.flatten()[positions + 1 - 2 * (positions % 2)]
            return self.table[positions % 2, other]

        return read(ScoresOf(project))


@pytest.fixture
def process() -> MDLM:
    return MDLM(vocab_size=V, schedule=LogLinear(eps=1e-3), mask_id=MASK)


def sample(
    process: MDLM,
    denoiser: Pairs,
    times: Tensor,
    *,
    samples: range,
    length: int = 2,
    temperature: float = 1.0,
) -> Sampled:
    noise = Noise.of_samples(0, "sample", samples=samples)
    x = process.prior(len(samples), length, noise=noise)
    truncation = Truncation(process, temperature=temperature)
    return sample_reverse(
        process, process.step, denoiser, x, times, noise=noise, truncation=truncation
    )


def enumerated(process: MDLM, denoiser: Pairs, times: Tensor, temperature: float = 1.0) -> Tensor:
    """Exact distribution of a pair at the end of the chain, shape (V, V)."""
    states = torch.cartesian_prod(torch.arange(V), torch.arange(V))
    every = torch.arange(2 * len(states))
    raw = denoiser(states, torch.zeros(len(states)), lambda head: head.scores(every))
    weight = torch.zeros(len(states), dtype=torch.float64)
    weight[-1] = 1  # both masked
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        t_b, s_b = (torch.full((len(states),), u, dtype=torch.float64) for u in (t, s))
        rows = process.reverse(raw / temperature, states, t_b, s_b, every).view(-1, 2, V)
        transition = rows[:, 0, :, None] * rows[:, 1, None, :]
        weight = weight @ transition.flatten(1)
    return weight.view(V, V)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize(
    "times",
    [torch.linspace(1, 0, 5, dtype=torch.float64), uniform_grid(1)],
    ids=["four steps", "one step and the removal of noise"],
)
def test_samples_have_the_distribution_of_the_enumerated_chain(process, times, temperature):
    denoiser = Pairs()
    expected = enumerated(process, denoiser, times, temperature)
    assert expected.sum().item() == pytest.approx(1, abs=1e-12)
    assert expected[MASK].sum() == expected[:, MASK].sum() == 0
    tokens = sample(
        process, denoiser, times, samples=range(100), length=3000, temperature=temperature
    ).tokens.view(-1, 2)
    assert len(tokens) == 150_000
    counts = (tokens[:, 0] * V + tokens[:, 1]).bincount(minlength=V * V)
    assert_frequencies(counts, expected)


def test_words_are_independent_in_one_step_and_tied_by_many(process):
    at_once = enumerated(process, Pairs(), torch.tensor([1.0, 0.0]))
    alone = ANSWERS[:, MASK, :MASK]
    assert_close(at_once[:MASK, :MASK], torch.outer(alone[0], alone[1]))
    one_by_one = enumerated(process, Pairs(), uniform_grid(1000))
    left, right = (ANSWERS[side, :MASK, :MASK] for side in (0, 1))
    expected = (alone[0][:, None] * right + alone[1] * left.T) / 2
    torch.testing.assert_close(one_by_one[:MASK, :MASK], expected, rtol=0, atol=1e-3)
    assert (at_once[:MASK, :MASK] - expected).abs().max() > 0.05


def test_a_low_temperature_leaves_only_the_best_answer(process):
    denoiser = Pairs()
    # One position is revealed a step, almost surely.
    sampled = sample(process, denoiser, uniform_grid(400), samples=range(40), temperature=1e-3)
    tables = denoiser.table[:, :, :MASK].argmax(-1)
    left_first = torch.stack([tables[0, MASK], tables[1, tables[0, MASK]]])
    right_first = torch.stack([tables[0, tables[1, MASK]], tables[1, MASK]])
    for row in sampled.tokens:
        assert row.equal(left_first) or row.equal(right_first)


def test_no_mask_is_left_by_any_grid(process):
    for times in (uniform_grid(1), uniform_grid(7), torch.tensor([1.0, 0.0])):
        tokens = sample(process, Pairs(), times, samples=range(20), length=50).tokens
        assert (tokens != MASK).all()


def test_a_network_call_counts_only_for_sequences_in_which_a_token_is_drawn(process):
    for steps in (1, 3, 200):
        denoiser = Pairs()
        sampled = sample(process, denoiser, uniform_grid(steps), samples=range(30))
        assert (sampled.evaluations >= 1).all()
        assert (sampled.evaluations <= min(steps + 1, 2)).all()
        # Every rank makes every call, also the ones that decide nothing.
        assert len(denoiser.seen) == steps + 1
    # Two tokens of one sequence fall into the same of 200 steps once in 200 times.
    assert sampled.evaluations.double().mean() > 1.8


def test_evaluations_are_the_steps_in_which_a_sequence_changed(process):
    times = uniform_grid(5)
    sampled = sample(process, Pairs(), times, samples=range(12), length=6)
    expected = torch.zeros(12, dtype=torch.long)
    # The same streams, stopped after ever more steps.
    states = [
        sample(process, Pairs(), times[: k + 1], samples=range(12), length=6).tokens
        for k in range(1, len(times))
    ]
    before = torch.full((12, 6), MASK)
    for state in states:
        expected += (state != before).any(1)
        before = state
    assert before.equal(sampled.tokens)
    assert sampled.evaluations.equal(expected)


def test_only_sequences_in_which_a_token_is_drawn_are_shown_to_the_network(process):
    denoiser = Pairs()
    sampled = sample(process, denoiser, uniform_grid(100), samples=range(8))
    shown = sum(len(x) for x in denoiser.seen)
    idle = sum(1 for x in denoiser.seen if len(x) == 1)
    assert sampled.evaluations.sum() <= shown <= sampled.evaluations.sum() + idle


def test_a_sequence_does_not_depend_on_its_batch_mates(process):
    together = sample(process, Pairs(), uniform_grid(6), samples=range(20, 29), length=8)
    for row, index in enumerate(range(20, 29)):
        alone = sample(process, Pairs(), uniform_grid(6), samples=range(index, index + 1), length=8)
        assert alone.tokens[0].equal(together.tokens[row])
        assert alone.evaluations[0] == together.evaluations[row]


def test_networks_are_shown_the_total_noise_of_the_time_they_start_from(process):
    denoiser = Pairs()
    times = torch.tensor([1.0, 0.6, 0.0], dtype=torch.float64)
    sample(process, denoiser, times, samples=range(4), length=40)
    for sigma, t in zip(denoiser.sigmas, times[:-1].tolist(), strict=True):
        expected = -math.log(1 - 0.999 * t)
        assert_close(sigma, torch.full((4,), expected, dtype=torch.float64))


def test_given_tokens_stay_and_the_start_is_not_changed(process):
    noise = Noise.of_samples(0, samples=range(3))
    x = torch.tensor([[1, MASK, MASK, 0], [MASK, MASK, 2, MASK], [0, 1, 2, 2]])
    start = x.clone()
    sampled = sample_reverse(process, process.step, Pairs(), x, uniform_grid(4), noise=noise)
    assert x.equal(start)
    given = start != MASK
    assert sampled.tokens[given].equal(start[given])
    assert sampled.evaluations[2] == 0


@pytest.mark.parametrize("times", [[0.5, 1.0], [1.0, 0.5, 0.5, 0.0], [1.0, 0.2, 0.3, 0.0]])
def test_a_grid_that_does_not_decrease_is_refused(process, times):
    with pytest.raises(ValueError, match="times must be strictly decreasing"):
        sample(process, Pairs(), torch.tensor(times), samples=range(2))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(process, temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
        sample(process, Pairs(), uniform_grid(2), samples=range(2), temperature=temperature)
