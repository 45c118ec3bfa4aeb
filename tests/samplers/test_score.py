import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.samplers.reverse import sample_reverse
from idlm_ds.samplers.score import Analytic, Euler
from idlm_ds.schedules.base import NoiseSchedule
from idlm_ds.schedules.cosine import Cosine
from idlm_ds.schedules.geometric import Geometric
from idlm_ds.schedules.loglinear import LogLinear

from ..tolerances import assert_close, assert_frequencies
from .small_world import OneStream, World, answer, masked_rows

DRAWS, V, MASK = 100_000, 4, 1
TIMES = [1.0, 0.7, 0.3, 0.0]
EPS, LOW, HIGH = 1e-2, 0.05, 3.0


@dataclass(frozen=True)
class Clock:
    """A schedule, and its total noise and rate as written on paper."""

    schedule: NoiseSchedule
    sigma: Callable[[float], float]
    rate: Callable[[float], float]


def cosine_alpha(t: float) -> float:
    return EPS + (1 - EPS) * math.cos(math.pi * t / 2)


def cosine_slope(t: float) -> float:
    return (1 - EPS) * math.pi / 2 * math.sin(math.pi * t / 2)


CLOCKS = {
    "loglinear": Clock(
        LogLinear(EPS),
        lambda t: -math.log(1 - (1 - EPS) * t),
        lambda t: (1 - EPS) / (1 - (1 - EPS) * t),
    ),
    "cosine": Clock(
        Cosine(EPS),
        lambda t: -math.log(cosine_alpha(t)),
        lambda t: cosine_slope(t) / cosine_alpha(t),
    ),
    "geometric": Clock(
        Geometric(LOW, HIGH),
        lambda t: LOW ** (1 - t) * HIGH**t,
        lambda t: LOW ** (1 - t) * HIGH**t * math.log(HIGH / LOW),
    ),
}


def scores(raw: Tensor, family: type[Absorbing], sigma: float) -> Tensor:
    """Ratios to the mask at a masked position, as published; the mask's own is 1."""
    if family is MDLM:
        ratios = answer(raw, MASK) * math.exp(-sigma) / (1 - math.exp(-sigma))
    else:
        ratios = raw.exp() / math.expm1(sigma) / (V - 1)
    return ratios.index_fill(-1, torch.tensor(MASK), 1.0)


def analytic(score: Tensor, clock: Clock, t: float, s: float) -> Tensor:
    """Staggered score times transition, before anything is clipped."""
    drop = clock.sigma(t) - (0.0 if s == 0 else clock.sigma(s))
    staggered = math.exp(drop) * score
    staggered[..., MASK] += (1 - math.exp(drop)) * score.sum(-1)
    to = torch.full((V,), 1 - math.exp(-drop), dtype=torch.float64)
    to[MASK] += math.exp(-drop)
    return staggered * to


def euler(score: Tensor, clock: Clock, t: float, s: float) -> Tensor:
    """Identity plus rate times step, before anything is clipped."""
    flow = (t - s) * clock.rate(t) * score
    flow[..., MASK] -= flow.sum(-1)
    flow[..., MASK] += 1
    return flow


WRITTEN = {Analytic: analytic, Euler: euler}


def enumerated(kind: type, family: type[Absorbing], world: World, clock: Clock) -> Tensor:
    """Exact distribution over the states at the end of a chain of unclipped or clipped steps."""
    here = F.one_hot(world.states, V).double()

    def rows(t: float, s: float) -> Tensor:
        sigma = clock.sigma(t)
        probs = WRITTEN[kind](scores(world.every(sigma), family, sigma), clock, t, s)
        if s == 0:
            probs[..., MASK] = 0  # what is left is drawn from the words
        probs = probs.clamp(min=0)
        probs = probs / probs.sum(-1, keepdim=True)
        return torch.where((world.states == MASK)[..., None], probs, here)

    start = (world.states == MASK).all(1).double()
    return world.follow(start, TIMES, rows)


def drawn(reverse_step, world: World, draws: int = DRAWS) -> Tensor:
    grid = torch.tensor(TIMES, dtype=torch.float64)
    x = torch.full((draws, 2), MASK)
    noise = OneStream(11, draws)
    return sample_reverse(reverse_step.process, reverse_step, world, x, grid, noise=noise).tokens


def make(kind: type, family: type[Absorbing], schedule: NoiseSchedule) -> Analytic | Euler:
    return kind(family(vocab_size=V, schedule=schedule, mask_id=MASK))


@pytest.mark.parametrize("shift", [-1.5, 0.0, 1.5], ids=["low", "fair", "high"])
@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS.keys())
@pytest.mark.parametrize("family", [MDLM, SEDD])
@pytest.mark.parametrize("kind", [Analytic, Euler])
def test_samples_have_the_distribution_of_the_enumerated_chain(kind, family, clock, shift):
    world = World(V, shift=shift)
    expected = enumerated(kind, family, world, clock)
    counts = world.counts(drawn(make(kind, family, clock.schedule), world))
    assert_frequencies(counts, expected)


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS.keys())
@pytest.mark.parametrize("kind", [Analytic, Euler])
def test_these_worlds_clip_large_steps_and_leave_others_alone(kind, clock):
    left_over = {}
    for shift in (-1.5, 1.5):
        score = scores(World(V, shift=shift).every(clock.sigma(1.0))[-1:], SEDD, clock.sigma(1.0))
        left_over[shift] = WRITTEN[kind](score, clock, 1.0, 0.7)[..., MASK]
    assert (left_over[-1.5] > 0).all()
    assert (left_over[1.5] < 0).any()


@pytest.mark.parametrize("family", [MDLM, SEDD])
@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS.keys())
def test_the_analytic_step_is_ancestral_where_ratios_sum_to_what_true_ones_do(family, clock):
    class Normalised(World):
        def raw(self, x: Tensor, sigma: Tensor) -> Tensor:
            return answer(super().raw(x, sigma), MASK).log() + math.log(V - 1)

    world = Normalised(V)

    def ancestral(t: float, s: float) -> Tensor:
        alpha_t, alpha_s = (1.0 if u == 0 else math.exp(-clock.sigma(u)) for u in (t, s))
        f = answer(world.every(clock.sigma(t)), MASK)
        return masked_rows(f, world.states, MASK, alpha_t, alpha_s)

    start = (world.states == MASK).all(1).double()
    expected = world.follow(start, TIMES, ancestral)
    assert_close(enumerated(Analytic, family, world, clock), expected)
    counts = world.counts(drawn(make(Analytic, family, clock.schedule), world))
    assert_frequencies(counts, expected)


@pytest.mark.parametrize("family", [MDLM, SEDD])
def test_the_two_steps_are_one_where_survival_falls_linearly(family):
    world = World(V, shift=1.0)
    by = {m: drawn(make(m, family, LogLinear(EPS)), world, 2000) for m in (Analytic, Euler)}
    assert by[Analytic].equal(by[Euler])
    by = {m: drawn(make(m, family, Cosine(EPS)), world, 2000) for m in (Analytic, Euler)}
    assert not by[Analytic].equal(by[Euler])


@pytest.mark.parametrize("family", [MDLM, SEDD])
@pytest.mark.parametrize("kind", [Analytic, Euler])
def test_steps_from_where_nothing_survives_are_drawn_too(kind, family):
    world = World(V, of_noise=0)
    tokens = {eps: drawn(make(kind, family, LogLinear(eps)), world, 5000) for eps in (0.0, 1e-12)}
    assert (tokens[0.0] < V).all()
    assert (tokens[0.0] != MASK).all()
    assert (tokens[0.0] == tokens[1e-12]).double().mean() > 0.999


@pytest.mark.parametrize("kind", [Analytic, Euler])
def test_visible_tokens_stay_and_no_mask_is_left(kind):
    step = make(kind, SEDD, Cosine(EPS))
    world = World(V, shift=-2.0)
    x = torch.tensor([[0, MASK], [MASK, 3], [2, 0]]).repeat(500, 1)
    grid = torch.tensor(TIMES, dtype=torch.float64)
    sampled = sample_reverse(step.process, step, world, x, grid, noise=OneStream(0, len(x)))
    assert sampled.tokens[x != MASK].equal(x[x != MASK])
    assert (sampled.tokens != MASK).all()
    assert (sampled.evaluations[2::3] == 0).all()
