"""Samplers of networks with a latent: fresh in every step, and each sequence's own."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Process, Read
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.processes.udlm import UDLM
from idlm_ds.samplers.blockwise import sample_blockwise
from idlm_ds.samplers.clamped import Given, sample_clamped
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.schedules.gaussian import GaussianMap, TokenClock
from idlm_ds.schedules.loglinear import LogLinear
from idlm_ds.tensor_types import LatentInput
from tests.heads import ScoresOf

V, MASK, LENGTH, STEPS = 7, 6, 8, 4
MASKED, SCORES = MDLM(V, LogLinear(), MASK), SEDD(V, LogLinear(), MASK)
UNIFORM = UDLM(V, LogLinear())
DUO = Duo(V, LogLinear(), TokenClock(GaussianMap(V), LogLinear()))


class Latent:
    """A network whose scores are its latent, and a preference that grows with the token seen."""

    def __init__(self) -> None:
        self.shown: list[LatentInput] = []

    def __call__(self, x: LatentInput, sigma: Tensor, read: Read, /) -> Tensor:
        del sigma
        self.shown.append(x)
        raw = 2.0 * x.z.double() + 0.1 * x.x[..., None] * torch.arange(V)
        return read(ScoresOf(lambda positions: raw.flatten(0, 1)[positions]))


Draw = Callable[[Latent, Sequence[int]], Tensor]


def noise_of(samples: Sequence[int]) -> Noise:
    return Noise.of_samples(3, "latent", samples=samples)


def chain(process: Process, **settings: object) -> Draw:
    config = SamplerConfig(**{"steps": STEPS, "latent": V, **settings})

    def draw(network: Latent, samples: Sequence[int]) -> Tensor:
        noise = noise_of(samples)
        x = process.prior(len(samples), LENGTH, noise=noise)
        return config.draw(process, network, x, noise=noise).tokens

    return draw


def clamped(process: Process) -> Draw:
    config = SamplerConfig(steps=STEPS, latent=V)

    def draw(network: Latent, samples: Sequence[int]) -> Tensor:
        rows = [[i % 5] * (i % 3) + [None] * (LENGTH - i % 3) for i in samples]
        noise = noise_of(samples)
        return sample_clamped(process, network, Given.of(rows), config, noise=noise).tokens

    return draw


def blockwise(**settings: object) -> Draw:
    def draw(network: Latent, samples: Sequence[int]) -> Tensor:
        prompt = torch.tensor([[i % 5] for i in samples])
        sizes = {"length": LENGTH, "block": 4, "steps": 8, "temperature": 1.0}
        noise = noise_of(samples)
        drawn = sample_blockwise(
            MASKED, network, prompt, noise=noise, latent=V, **{**sizes, **settings}
        )
        return drawn.tokens

    return draw


SAMPLERS = {
    "mdlm": chain(MASKED),
    "mdlm, one step": chain(MASKED, steps=1),
    "mdlm, many steps": chain(MASKED, steps=40),
    "mdlm, greedy tail": chain(MASKED, tail="greedy"),
    "mdlm, no tail": chain(MASKED, tail="none"),
    "mdlm, float32": chain(MASKED, precision="float32"),
    "sedd, analytic": chain(SCORES, sampler="analytic"),
    "sedd, euler": chain(SCORES, sampler="euler"),
    "udlm": chain(UNIFORM),
    "udlm, greedy tail": chain(UNIFORM, tail="greedy"),
    "duo": chain(DUO),
    "clamped mdlm": clamped(MASKED),
    "clamped udlm": clamped(UNIFORM),
    "blockwise": blockwise(),
    "blockwise, greedy": blockwise(temperature=0.0),
    "blockwise, guided": blockwise(guidance=1.5),
    "blockwise, idle steps": blockwise(block=2, steps=16),
}


@pytest.fixture(params=SAMPLERS)
def draw(request: pytest.FixtureRequest) -> Draw:
    return SAMPLERS[request.param]


def in_parts(draw: Draw, samples: Sequence[int], size: int) -> Tensor:
    parts = [samples[i : i + size] for i in range(0, len(samples), size)]
    return torch.cat([draw(Latent(), part) for part in parts])


def test_a_sample_is_the_same_in_any_batch_and_on_any_rank(draw):
    whole = draw(Latent(), range(9))
    assert len(whole.unique(dim=0)) > 4
    assert in_parts(draw, range(9), 1).equal(whole)
    assert in_parts(draw, range(9), 4).equal(whole)
    for rank in range(2):
        assert in_parts(draw, range(rank, 9, 2), 3).equal(whole[rank::2])


def test_a_latent_drawn_by_batch_would_not_pass_this_test(draw, monkeypatch):
    """The planted fault: all rows of a batch take their latents from its first stream."""

    def of_the_first(self: Noise, *shape: int) -> Tensor:
        first = self._generators[0]
        return torch.randn(len(self._generators), *shape, generator=first)

    monkeypatch.setattr(Noise, "normal", of_the_first)
    assert not in_parts(draw, range(9), 4).equal(draw(Latent(), range(9)))


def test_a_latent_is_fresh_in_every_step():
    network = Latent()
    chain(UNIFORM)(network, range(3))
    values = torch.stack([shown.z for shown in network.shown])
    # Of the step from t=1/2 the gate is all but zero; with that of t=1/4 it lets nothing in.
    assert (values[:2].diff(dim=0) != 0).all()
    assert (values[2].abs() < 0.01).all()
    assert (values[3] == 0).all()


@pytest.mark.parametrize("name", ["mdlm, many steps", "sedd, analytic", "clamped mdlm"])
def test_a_masked_state_shows_a_latent_at_its_masks_while_they_are_the_most(name):
    network = Latent()
    SAMPLERS[name](network, range(6))
    assert len(network.shown) > 1
    for shown in network.shown:
        is_masked = shown.x == MASK
        enters = (shown.z != 0).all(-1)
        assert enters.equal(is_masked & (2 * is_masked.sum(1) > LENGTH)[:, None])
        assert enters.equal((shown.z != 0).any(-1))
    assert any(shown.z.count_nonzero() == 0 for shown in network.shown)


def test_scores_with_and_without_a_prompt_share_a_latent():
    network = Latent()
    blockwise(guidance=1.0)(network, range(3))
    with_prompt, without = network.shown[:2]
    assert (without.x[:, 0] == MASK).all()
    assert (with_prompt.z[:, 0] == 0).all()
    assert (without.z[:, 0] != 0).all()
    # One latent, each time gated by what is shown: 8 of 9 positions are masked, then all.
    torch.testing.assert_close(with_prompt.z[:, 1:], without.z[:, 1:] * (2 * 8 / 9 - 1))


class Coin:
    """A network whose every word is the sign of the first position's latent."""

    def __call__(self, x: LatentInput, sigma: Tensor, read: Read, /) -> Tensor:
        word = (x.z[:, 0, 0] > 0).long()
        raw = 1000.0 * torch.nn.functional.one_hot(word, V).double()
        return read(ScoresOf(lambda positions: raw[positions // LENGTH]))


def test_one_step_draws_words_that_belong_together():
    """A mixture over the latent: two sequences, each with probability one half."""
    noise = Noise.of_samples(0, "coin", samples=range(400))
    config = SamplerConfig(steps=1, latent=1)
    x = MASKED.prior(400, LENGTH, noise=noise)
    tokens = config.draw(MASKED, Coin(), x, noise=noise).tokens
    assert (tokens == tokens[:, :1]).all()
    assert tokens.unique().tolist() == [0, 1]
    assert tokens[:, 0].double().mean().item() == pytest.approx(0.5, abs=0.1)
