"""Chains against their transition matrices, and what they cost."""

import math

import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Process, Read
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.processes.udlm import UDLM
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.samplers.reference import ReferenceStep
from idlm_ds.samplers.reverse import Sampled, sample_reverse
from idlm_ds.samplers.score import Analytic, Euler
from idlm_ds.samplers.truncation import Truncation
from idlm_ds.schedules.gaussian import GaussianMap, TokenClock
from idlm_ds.schedules.loglinear import LogLinear
from tests.heads import ScoresOf, answering

from ..tolerances import assert_close, assert_frequencies
from .small_world import (
    EPS,
    OneStream,
    World,
    alpha,
    answer,
    likeliest_rows,
    masked_rows,
    uniform_rows,
)

DRAWS = 100_000
MASK = 2
"""Where the families have one, in the middle of the vocabulary."""

SCHEDULE = LogLinear(EPS)
FAMILIES = {
    "mdlm": MDLM(vocab_size=4, schedule=SCHEDULE, mask_id=MASK),
    "sedd": SEDD(vocab_size=4, schedule=SCHEDULE, mask_id=MASK),
    "udlm": UDLM(vocab_size=3, schedule=SCHEDULE),
    "duo": Duo(vocab_size=3, schedule=SCHEDULE, clock=TokenClock(GaussianMap(3), SCHEDULE)),
}
CHAINS = {
    f"{len(grid) - 1} steps, {tail}": (grid, tail)
    for grid in ([1.0, 0.45, 0.0], [1.0, 0.6, 0.3, 0.0])
    for tail in ("ancestral", "greedy", "none")
}
CHAINS |= {
    f"equal steps, {tail}": (uniform_grid(3).tolist(), tail) for tail in ("ancestral", "greedy")
}
FORMS = {
    "step": lambda process: process.step,
    "dense": ReferenceStep,
    "dense float32": lambda process: ReferenceStep(process, "float32"),
}
families = pytest.mark.parametrize("process", FAMILIES.values(), ids=FAMILIES.keys())


def mask_of(process: Process) -> int | None:
    return process.mask_id if isinstance(process, Absorbing) else None


def start_of(process: Process, world: World) -> Tensor:
    """The prior over the states of the world."""
    size, mask_id = world.vocab_size, mask_of(process)
    if mask_id is None:
        return torch.full((size**2,), 1 / size**2, dtype=torch.float64)
    return (world.states == mask_id).all(1).double()


def reverse_rows(process: Process, world: World, f: Tensor, t: float, s: float) -> Tensor:
    """Probabilities of each token at ``s`` at each position in every state."""
    mask_id, alpha_t, alpha_s = mask_of(process), alpha(t), 1.0 if s == 0 else alpha(s)
    if mask_id is None:
        return uniform_rows(f, world.states, alpha_t, alpha_s)
    return masked_rows(f, world.states, mask_id, alpha_t, alpha_s)


def enumerated(
    process: Process, world: World, times: list[float], tail: str, truncation=lambda f: f
) -> Tensor:
    """Exact distribution over the states at the end of the chain, from formulas alone."""

    def rows(t: float, s: float) -> Tensor:
        f = truncation(answer(world.every(-math.log(alpha(t))), mask_of(process)))
        if s == 0 and tail == "greedy":
            return likeliest_rows(f, world.states, mask_of(process))
        return reverse_rows(process, world, f, t, s)

    used = times[:-1] if tail == "none" else times
    return world.follow(start_of(process, world), used, rows)


def drawn(
    process: Process, world: World, times: list[float], *, form: str = "step", **settings
) -> Tensor:
    """Samples of the chain, one pair a row."""
    noise = OneStream(7, DRAWS)
    mask_id = mask_of(process)
    if mask_id is None:
        x = (noise.uniform(2) * world.vocab_size).long()
    else:
        x = torch.full((DRAWS, 2), mask_id)
    reverse_step, grid = FORMS[form](process), torch.tensor(times, dtype=torch.float64)
    return sample_reverse(process, reverse_step, world, x, grid, noise=noise, **settings).tokens


@families
@pytest.mark.parametrize(("times", "tail"), CHAINS.values(), ids=CHAINS.keys())
@pytest.mark.parametrize("form", FORMS)
def test_samples_have_the_distribution_of_the_enumerated_chain(process, times, tail, form):
    world = World(process.vocab_size)
    expected = enumerated(process, world, times, tail)
    counts = world.counts(drawn(process, world, times, form=form, tail=tail))
    assert_frequencies(counts, expected)


@families
@pytest.mark.parametrize(("t", "s"), [(1.0, 0.6), (0.5, 0.499), (1e-3, 1e-5), (0.3, 0.0)])
def test_rows_of_a_dense_step_are_the_published_ones(process, t, s):
    world = World(process.vocab_size)
    raw, states = world.every(-math.log(alpha(t))), world.states
    t_b, s_b = (torch.full((len(states),), u, dtype=torch.float64) for u in (t, s))
    got = process.reverse(raw.flatten(0, 1), states, t_b, s_b, torch.arange(2 * len(states)))
    expected = reverse_rows(process, world, answer(raw, mask_of(process)), t, s)
    assert_close(got, expected.flatten(0, 1))


@families
def test_a_chain_that_forgets_the_noise_level_or_the_other_token_would_be_noticed(process):
    times = [1.0, 0.6, 0.3, 0.0]
    world, deaf = World(process.vocab_size), World(process.vocab_size, of_noise=0)
    expected, wrong = (enumerated(process, w, times, "ancestral") for w in (world, deaf))
    pairs = expected.view(process.vocab_size, -1)
    independent = pairs.sum(1, keepdim=True) * pairs.sum(0)
    for other in (wrong, independent.flatten()):
        excess = (other - expected) ** 2 / expected.clamp(min=1e-9)
        assert DRAWS * excess.sum() > 200


@families
@pytest.mark.parametrize("form", ["step", "dense"])
def test_a_nucleus_is_cut_from_the_answer_and_not_from_the_step(process, form):
    nucleus, times = 0.7, [1.0, 0.6, 0.3, 0.0]

    def cut(f: Tensor) -> Tensor:
        kept = torch.zeros_like(f)
        for row, out in zip(f.flatten(0, 1), kept.flatten(0, 1), strict=True):
            mass = 0.0
            for word in row.argsort(descending=True).tolist():
                if mass < nucleus:
                    out[word] = row[word]
                mass += row[word].item()
        return kept / kept.sum(-1, keepdim=True)

    world = World(process.vocab_size)
    expected = enumerated(process, world, times, "ancestral", cut)
    truncation = Truncation(process, nucleus=nucleus)
    counts = world.counts(drawn(process, world, times, form=form, truncation=truncation))
    assert_frequencies(counts, expected)
    assert (expected - enumerated(process, world, times, "ancestral")).abs().max() > 0.03


class Neighbours:
    """A denoiser of sequences of any length that likes words near the mean of what it sees."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.calls = 0
        self.projected = 0

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        self.calls += 1
        length = x.shape[1]
        centre = x.double().mean(1, keepdim=True) + 0.1 * torch.tanh(sigma)[:, None]
        rows = -(torch.arange(self.vocab_size) - centre).abs()

        def project(positions: Tensor) -> Tensor:
            self.projected += len(positions)
            return rows[positions // length]

        return read(ScoresOf(project))


LENGTH = 7


def run(process: Process, reverse_step, samples: list[int], times: Tensor, **settings) -> Sampled:
    noise = Noise.of_samples(3, "walk", samples=samples)
    x = process.prior(len(samples), LENGTH, noise=noise)
    return sample_reverse(
        process, reverse_step, Neighbours(process.vocab_size), x, times, noise=noise, **settings
    )


REVERSE_STEPS = {
    f"{name} {form}": (process, FORMS[form](process))
    for name, process in FAMILIES.items()
    for form in FORMS
}
REVERSE_STEPS |= {
    "sedd analytic": (FAMILIES["sedd"], Analytic(FAMILIES["sedd"])),
    "sedd euler": (FAMILIES["sedd"], Euler(FAMILIES["sedd"])),
}


@pytest.mark.parametrize(
    ("process", "reverse_step"), REVERSE_STEPS.values(), ids=REVERSE_STEPS.keys()
)
@pytest.mark.parametrize("tail", ["ancestral", "greedy"])
def test_a_sequence_is_the_same_in_any_batch_order_and_padding(process, reverse_step, tail):
    times = uniform_grid(4)
    whole = run(process, reverse_step, [*range(10)], times, tail=tail)
    batches = [[3, 0, 7], [9], [1, 4, 2, 8, 6, 5]]
    padded = [[100, *batch, 3, 101] for batch in batches]
    for split, margin in ((batches, slice(None)), (padded, slice(1, -2))):
        for batch, samples in zip(batches, split, strict=True):
            part = run(process, reverse_step, samples, times, tail=tail)
            assert part.tokens[margin].equal(whole.tokens[batch])
            assert part.evaluations[margin].equal(whole.evaluations[batch])


def cached(process: Process, samples: list[int], times: Tensor) -> Sampled:
    """The sampler of publications: the network is run again only after a token has changed."""
    tokens, runs = [], []
    for sample in samples:
        noise = Noise.of_samples(3, "walk", samples=[sample])
        x, network = process.prior(1, LENGTH, noise=noise), Neighbours(process.vocab_size)
        answer = None
        for t, s in zip(times[:-1, None], times[1:, None], strict=True):
            if answer is None:
                answer = network(x, 0 * t, lambda head: head.scores(torch.arange(LENGTH)))
            before, ask = x, answering(answer.__getitem__)
            x = process.step(x, t, s, ask, noise=noise)
            answer = answer if x.equal(before) else None
        tokens.append(x)
        runs.append(network.calls)
    return Sampled(torch.cat(tokens), torch.tensor(runs))


@pytest.mark.parametrize("process", [FAMILIES["mdlm"], FAMILIES["sedd"]], ids=["mdlm", "sedd"])
@pytest.mark.parametrize("steps", [1, 4, 16, 64])
def test_a_network_that_is_not_run_costs_no_more_than_one_whose_answer_is_kept(process, steps):
    samples, times = [*range(16)], uniform_grid(steps)
    noise = Noise.of_samples(3, "walk", samples=samples)
    x, network = process.prior(16, LENGTH, noise=noise), Neighbours(process.vocab_size)

    def timeless(x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        return network(x, 0 * sigma, read)

    ours = sample_reverse(process, process.step, timeless, x, times, noise=noise)
    published = cached(process, samples, times)
    assert ours.tokens.equal(published.tokens)
    saved = published.evaluations - ours.evaluations
    assert saved.min() >= 0
    # The last step removes hardly any noise; where it draws nothing, the first call is saved.
    assert (saved == 1).all()
    assert (ours.evaluations <= min(LENGTH, steps)).all()
    assert network.calls == steps + 1


@families
def test_a_factorised_step_projects_less_than_a_dense_one(process):
    times, projected = uniform_grid(100), {}
    for form in ("step", "dense"):
        noise, network = OneStream(0, 50), Neighbours(process.vocab_size)
        x = torch.zeros(50, LENGTH).long() + (mask_of(process) or 0)
        sample_reverse(process, FORMS[form](process), network, x, times, noise=noise)
        assert network.calls == 101
        projected[form] = network.projected / x.numel()
    if isinstance(process, Absorbing):
        # Each position once, against as many times as it is found masked.
        assert projected["step"] == 1
        assert projected["dense"] == pytest.approx(50.5, rel=0.1)
    else:
        assert projected["step"] < math.log(100) + 7
        assert projected["dense"] == 101


def test_without_a_tail_only_the_step_to_zero_is_left_out():
    process, times = FAMILIES["mdlm"], torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)
    expected = run(process, process.step, [*range(5)], times)
    to_zero = torch.cat([times, torch.zeros(1)])
    for grid in (times, to_zero):
        got = run(process, process.step, [*range(5)], grid, tail="none")
        assert got.tokens.equal(expected.tokens)
        assert got.evaluations.equal(expected.evaluations)
    assert (expected.tokens == MASK).any()


def test_a_greedy_tail_takes_the_likeliest_word_only_where_one_is_missing():
    process, times = FAMILIES["mdlm"], torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    before = run(process, process.step, [*range(20)], times, tail="none").tokens
    after = run(process, process.step, [*range(20)], times, tail="greedy").tokens
    is_masked = before == MASK
    assert after[~is_masked].equal(before[~is_masked])
    centre = before.double().mean(1) + 0.1 * math.tanh(-math.log(alpha(0.5)))
    distance = (torch.tensor([0.0, 1.0, 3.0]) - centre[:, None]).abs()
    best = torch.tensor([0, 1, 3])[distance.argmin(1)]
    assert after[is_masked].equal(best[:, None].expand(-1, LENGTH)[is_masked])
