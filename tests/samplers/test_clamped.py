"""Chains in which some tokens are known, against their transition matrices."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Process
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.udlm import UDLM
from idlm_ds.samplers.clamped import Given, sample_clamped
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.samplers.reverse import Sampled
from idlm_ds.schedules.loglinear import LogLinear

from ..tolerances import assert_frequencies
from .small_world import EPS, OneStream, World, alpha, answer, likeliest_rows
from .test_reverse import FAMILIES, LENGTH, MASK, Neighbours, mask_of, reverse_rows, start_of

DRAWS = 60_000
STEPS = 3
families = pytest.mark.parametrize("process", FAMILIES.values(), ids=FAMILIES.keys())
CHAINS = {
    "ancestral": SamplerConfig(steps=STEPS),
    "greedy": SamplerConfig(steps=STEPS, tail="greedy"),
    "dense float32": SamplerConfig(steps=STEPS, precision="float32"),
}


def enumerated(process: Process, world: World, row: list[int | None], tail: str) -> Tensor:
    """The chain written out, with known positions as rows that say so in every step."""
    known = torch.tensor([token is not None for token in row])
    words = F.one_hot(torch.tensor([token or 0 for token in row]), world.vocab_size).double()

    def rows(t: float, s: float) -> Tensor:
        f = answer(world.every(-math.log(alpha(t))), mask_of(process))
        if s == 0 and tail == "greedy":
            free = likeliest_rows(f, world.states, mask_of(process))
        else:
            free = reverse_rows(process, world, f, t, s)
        return torch.where(known[:, None], words, free)

    start = torch.zeros(world.vocab_size**2, dtype=torch.float64)
    for weight, (left, right) in zip(start_of(process, world), world.states, strict=True):
        pair = torch.where(known, torch.tensor([t or 0 for t in row]), torch.stack([left, right]))
        start[pair[0] * world.vocab_size + pair[1]] += weight
    return world.follow(start, uniform_grid(STEPS).tolist(), rows)


def clamped(
    process: Process, world, rows: list[list[int | None]], config: SamplerConfig
) -> Sampled:
    """Many draws, each kind of row as often as the others."""
    given = Given.of(rows * (DRAWS // len(rows)))
    return sample_clamped(process, world, given, config, noise=OneStream(7, len(given.tokens)))


@families
@pytest.mark.parametrize("config", CHAINS.values(), ids=CHAINS.keys())
def test_samples_have_the_distribution_of_the_enumerated_conditional_chain(process, config):
    world, rows = World(process.vocab_size), [[1, None], [None, 0], [None, None]]
    tokens = clamped(process, world, rows, config).tokens
    for i, row in enumerate(rows):
        expected = enumerated(process, world, row, config.tail)
        assert_frequencies(world.counts(tokens[i :: len(rows)]), expected)


@families
def test_a_chain_that_forgets_what_is_known_would_be_noticed(process):
    world = World(process.vocab_size)
    expected = enumerated(process, world, [1, None], "ancestral")
    free = enumerated(process, world, [None, None], "ancestral")
    kept = torch.where(world.states[:, 0] == 1, free, 0.0)
    other = kept / kept.sum()
    excess = (other - expected) ** 2 / expected.clamp(min=1e-9)
    assert DRAWS / 3 * excess.sum() > 200


@pytest.mark.parametrize("name", ["mdlm", "sedd"])
@pytest.mark.parametrize("steps", [1, 5])
def test_the_last_open_token_of_a_masked_family_follows_the_network_s_answer(name, steps):
    process, world = FAMILIES[name], World(4, of_noise=0)
    tokens = clamped(process, world, [[3, None]], SamplerConfig(steps=steps)).tokens
    raw = world.raw(torch.tensor([[3, MASK]]), torch.ones(1, dtype=torch.float64))
    assert (tokens[:, 0] == 3).all()
    assert_frequencies(tokens[:, 1].bincount(minlength=4), answer(raw[0, 1], MASK))


PLACES = [[None] * 7, [1, *[None] * 6], [None, 0, None, None, 1, None, 0], [0, 1, 1, *[None] * 4]]


def run(process: Process, samples: list[int], config: SamplerConfig) -> Sampled:
    given = Given.of([PLACES[sample % len(PLACES)] for sample in samples])
    noise = Noise.of_samples(3, "clamped", samples=samples)
    return sample_clamped(process, Neighbours(process.vocab_size), given, config, noise=noise)


@families
@pytest.mark.parametrize("tail", ["ancestral", "greedy"])
def test_a_sequence_is_the_same_beside_others_with_other_known_places(process, tail):
    config = SamplerConfig(steps=4, tail=tail)
    whole = run(process, [*range(12)], config)
    for batch in ([3, 0, 7], [9], [1, 11, 4, 2, 8, 10, 6, 5]):
        part = run(process, batch, config)
        assert part.tokens.equal(whole.tokens[batch])
        assert part.evaluations.equal(whole.evaluations[batch])
    for sample, tokens in enumerate(whole.tokens.tolist()):
        pairs = zip(PLACES[sample % len(PLACES)], tokens, strict=True)
        assert all(token in (None, drawn) for token, drawn in pairs)


@families
def test_nothing_is_asked_where_everything_is_known(process):
    given = Given.of([[0, 1, 0, 1, 0, 1, 0], [None] * LENGTH])
    noise, network = Noise(range(2)), Neighbours(process.vocab_size)
    sampled = sample_clamped(process, network, given, SamplerConfig(steps=6), noise=noise)
    assert sampled.tokens[0].tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert sampled.evaluations[0] == 0
    assert sampled.evaluations[1] > 0


@pytest.mark.parametrize(
    ("process", "token"),
    [
        (MDLM(vocab_size=4, schedule=LogLinear(EPS), mask_id=MASK), MASK),
        (MDLM(vocab_size=4, schedule=LogLinear(EPS), mask_id=MASK), 4),
        (UDLM(vocab_size=3, schedule=LogLinear(EPS)), -1),
    ],
)
def test_the_mask_and_what_is_no_token_cannot_be_known(process, token):
    network = Neighbours(process.vocab_size)
    with pytest.raises(ValueError, match=f"given: {token} is no token that can be known"):
        sample_clamped(
            process, network, Given.of([[0, token, None]]), SamplerConfig(steps=2), noise=Noise([0])
        )
    assert network.calls == 0
