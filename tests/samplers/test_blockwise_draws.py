"""Blockwise generation: what it draws, against enumerated steps, and from which random numbers."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Read
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.samplers.blockwise import sample_blockwise
from idlm_ds.samplers.reverse import Sampled
from idlm_ds.schedules.loglinear import LogLinear
from tests.heads import ScoresOf

from ..tolerances import assert_frequencies
from .small_world import EPS, OneStream, World, answer

DRAWS = 100_000
SCORES = torch.tensor([[0.3, -1.0, 0.8, 1.1], [1.5, 0.0, -0.5, 0.4]], dtype=torch.float64)
SMALL = MDLM(vocab_size=4, schedule=LogLinear(EPS), mask_id=3)


class Fixed:
    """A denoiser with the same scores whatever it sees; keeps a record of that."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        self.seen.append(x.clone())
        return read(ScoresOf(lambda positions: self.scores[positions % x.shape[1]]))


def draw_many(denoiser, *, prompt_length: int = 0, length: int = 2, **settings) -> Tensor:
    prompt = torch.zeros(DRAWS, prompt_length, dtype=torch.long)
    defaults = {"block": length, "steps": length, "noise": OneStream(3, DRAWS)}
    sampled = sample_blockwise(SMALL, denoiser, prompt, length=length, **{**defaults, **settings})
    return sampled.tokens[:, prompt_length:]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_candidate_is_drawn_from_the_tempered_scores(temperature):
    tokens = draw_many(Fixed(SCORES[:1]), length=1, temperature=temperature)
    expected = answer(SCORES[0] / temperature, 3)
    assert_frequencies(tokens[:, 0].bincount(minlength=4), expected)


def test_the_draw_is_that_of_the_published_race():
    temperature, generator = 0.6, torch.Generator().manual_seed(0)
    u = torch.rand(DRAWS, 3, generator=generator, dtype=torch.float64)
    race = (SCORES[0, :3].exp() / (-u.log()) ** temperature).argmax(1)
    assert_frequencies(race.bincount(minlength=4), answer(SCORES[0] / temperature, 3))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_confidence_is_the_candidate_s_probability_without_the_temperature(temperature):
    denoiser = Fixed(SCORES)
    draw_many(denoiser, temperature=temperature)
    drawn_from, confidence = answer(SCORES / temperature, 3), answer(SCORES, 3)
    expected = torch.zeros(2, 4, dtype=torch.float64)
    for left, right in itertools.product(range(3), repeat=2):
        side = 0 if confidence[0, left] >= confidence[1, right] else 1
        expected[side, (left, right)[side]] += drawn_from[0, left] * drawn_from[1, right]
    after_one = denoiser.seen[1]
    is_open = after_one == 3
    assert (is_open.sum(1) == 1).all()
    side = (~is_open).long().argmax(1)
    word = after_one.gather(1, side[:, None])[:, 0]
    assert_frequencies((side * 4 + word).bincount(minlength=8), expected)


def test_random_remasking_commits_any_position_whatever_its_confidence():
    denoiser = Fixed(torch.tensor([[9.0, 0, 0, 0], [1.0, 0, 0, 0], [0.5, 0, 0, 0], [4.0, 0, 0, 0]]))
    tokens = draw_many(denoiser, length=4, steps=2, remasking="random")
    assert (tokens == 0).all()
    first = denoiser.seen[1] != 3
    assert (first.sum(1) == 2).all()
    pairs = (first.long() * torch.tensor([1, 2, 4, 8])).sum(1).bincount(minlength=16)
    expected = torch.zeros(16, dtype=torch.float64)
    expected[[3, 5, 6, 9, 10, 12]] = 1 / 6
    assert_frequencies(pairs, expected)


@pytest.mark.parametrize("remasking", ["low_confidence", "random"])
def test_sequences_have_the_distribution_of_the_enumerated_steps(remasking):
    world, temperature = World(4), 1.4
    sigmas = [-math.log(EPS), math.log(2)]
    expected = torch.zeros(4, 4, dtype=torch.float64)
    start = world.every(sigmas[0])[-1]
    later = world.every(sigmas[1]).view(4, 4, 2, 4)
    drawn_from, confidence = answer(start / temperature, 3), answer(start, 3)
    for left, right in itertools.product(range(3), repeat=2):
        is_left = 1.0 if confidence[0, left] >= confidence[1, right] else 0.0
        chance = {0: is_left, 1: 1 - is_left} if remasking == "low_confidence" else {0: 0.5, 1: 0.5}
        weight = drawn_from[0, left] * drawn_from[1, right]
        expected[left] += weight * chance[0] * answer(later[left, 3, 1] / temperature, 3)
        expected[:, right] += weight * chance[1] * answer(later[3, right, 0] / temperature, 3)
    tokens = draw_many(world, temperature=temperature, remasking=remasking)
    assert_frequencies(world.counts(tokens), expected.flatten())


class Prompted:
    """A denoiser whose scores change when it cannot see the prompt; keeps a record."""

    def __init__(self) -> None:
        self.with_prompt, self.without = SCORES
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        self.seen.append(x.clone())
        blind = (x[:, 0] == 3)[:, None]
        rows = torch.where(blind, self.without, self.with_prompt)
        return read(ScoresOf(lambda positions: rows[positions // x.shape[1]]))


@pytest.mark.parametrize("guidance", [0.0, 0.5, 2.0])
def test_guidance_moves_scores_away_from_those_without_the_prompt(guidance):
    denoiser = Prompted()
    tokens = draw_many(denoiser, prompt_length=2, length=1, temperature=1.0, guidance=guidance)
    with_prompt, without = SCORES
    expected = answer(without + (guidance + 1) * (with_prompt - without), 3)
    assert_frequencies(tokens[:, 0].bincount(minlength=4), expected)


def test_guidance_costs_a_second_call_in_which_only_the_prompt_is_masked():
    denoiser = Prompted()
    prompt = torch.tensor([[1, 0], [2, 2]])
    settings = {"length": 4, "block": 2, "steps": 6, "noise": Noise([0, 1])}
    sampled = sample_blockwise(SMALL, denoiser, prompt, guidance=1.0, **settings)
    assert sampled.evaluations.tolist() == [8, 8]
    assert len(denoiser.seen) == 12
    for seen, blind in zip(denoiser.seen[::2], denoiser.seen[1::2], strict=True):
        assert seen[:, :2].equal(prompt[: len(seen)])
        assert (blind[:, :2] == 3).all()
        assert blind[:, 2:].equal(seen[:, 2:])


SETTINGS = [
    {"temperature": 0.0},
    {"temperature": 0.8},
    {"temperature": 0.8, "remasking": "random", "guidance": 0.7},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_sequence_does_not_depend_on_its_batch_mates(settings):
    def run(samples: list[int]) -> Sampled:
        prompt = torch.tensor([[s % 3] for s in samples])
        noise = Noise.of_samples(2, "blockwise", samples=samples)
        shape = {"length": 6, "block": 3, "steps": 8}
        return sample_blockwise(SMALL, Crowd(), prompt, noise=noise, **shape, **settings)

    whole = run([*range(9)])
    for batch in ([4], [8, 0], [7, 1, 2, 6, 3, 5]):
        part = run(batch)
        assert part.tokens.equal(whole.tokens[batch])
        assert part.evaluations.equal(whole.evaluations[batch])
    assert len(whole.tokens.unique(dim=0)) > 2


class Crowd:
    """A denoiser that answers by all it sees of a sequence and by the position."""

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        length = x.shape[1]
        mean = x.double().mean(1)

        def project(positions: Tensor) -> Tensor:
            phase = mean[positions // length] * (1 + positions % length)
            return 2 * torch.sin(phase[:, None] + torch.arange(4))

        return read(ScoresOf(project))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_setting_uses_up_as_many_random_numbers_of_64_bits(settings):
    dtypes = []

    class Recording(Noise):
        def uniform(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            dtypes.append(dtype)
            return super().uniform(*shape, dtype=dtype)

    noise, plain = Recording([0, 1]), Noise([0, 1])
    shape = {"length": 6, "block": 3, "steps": 8}
    prompt = torch.tensor([[0], [1]])
    sample_blockwise(SMALL, Crowd(), prompt, noise=noise, **shape, **settings)
    for _ in range(2 * 8):
        plain.uniform(3)
    assert noise.uniform(1).equal(plain.uniform(1))
    assert set(dtypes) == {torch.float64}
