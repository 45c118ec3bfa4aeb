import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Process
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.udlm import UDLM
from idlm_ds.samplers.ancestral import sample_ancestral
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.samplers.reference import ReferenceStep
from idlm_ds.samplers.reverse import sample_reverse
from idlm_ds.samplers.score import Analytic, Euler
from idlm_ds.schedules.loglinear import LogLinear

from .small_world import World

V = 4
MASKED = MDLM(vocab_size=V, schedule=LogLinear(), mask_id=3)
UNIFORM = UDLM(vocab_size=V, schedule=LogLinear())


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({}, "ancestral"),
        ({"tail": "greedy"}, "ancestral+greedy"),
        ({"tail": "none"}, "ancestral+none"),
        ({"nucleus": 0.9}, "ancestral, nucleus 0.9"),
        ({"tail": "greedy", "nucleus": 0.95}, "ancestral+greedy, nucleus 0.95"),
        ({"sampler": "analytic"}, "analytic"),
        ({"sampler": "euler", "tail": "greedy"}, "euler+greedy"),
        # Temperature and precision are printed beside the label.
        ({"temperature": 0.7, "precision": "float32"}, "ancestral"),
    ],
)
def test_a_label_says_what_is_not_plain(settings, label):
    assert SamplerConfig(steps=4, **settings).label == label


@pytest.mark.parametrize("sampler", ["analytic", "euler"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "float32"}, "^precision: {} draws in float64 only$"),
        ({"temperature": 0.5}, "^temperature, nucleus: {} takes its pace from .*; use ancestral$"),
        ({"nucleus": 0.5}, "^temperature, nucleus: {} takes its pace from .*; use ancestral$"),
    ],
)
def test_settings_that_could_not_take_effect_are_refused(sampler, settings, message):
    with pytest.raises(ValueError, match=message.format(sampler)):
        SamplerConfig(steps=4, sampler=sampler, **settings)


@pytest.mark.parametrize("sampler", ["analytic", "euler"])
def test_a_family_without_a_mask_has_no_ratios_to_it(sampler):
    with pytest.raises(ValueError, match=f"^sampler: {sampler} needs a masked family; use ance"):
        SamplerConfig(steps=4, sampler=sampler).reverse_step(UNIFORM)


def test_a_chain_without_steps_is_refused():
    x = torch.full((1, 2), 3)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        SamplerConfig(steps=0).draw(MASKED, World(V), x, noise=Noise([0]))


def walked(process: Process, move, samples: int, **settings) -> Tensor:
    noise = Noise.of_samples(0, samples=range(samples))
    x = process.prior(samples, 2, noise=noise)
    return sample_reverse(
        process, move, World(V), x, uniform_grid(5), noise=noise, **settings
    ).tokens


@pytest.mark.parametrize(
    ("process", "settings", "move"),
    [
        (MASKED, {}, MASKED.step),
        (UNIFORM, {}, UNIFORM.step),
        (MASKED, {"precision": "float32"}, ReferenceStep(MASKED, "float32")),
        (UNIFORM, {"precision": "float32"}, ReferenceStep(UNIFORM, "float32")),
        (MASKED, {"sampler": "analytic"}, Analytic(MASKED)),
        (MASKED, {"sampler": "euler"}, Euler(MASKED)),
        (MASKED, {"tail": "none"}, MASKED.step),
        (UNIFORM, {"tail": "greedy"}, UNIFORM.step),
    ],
)
def test_a_chain_walks_the_equal_grid_with_the_step_it_names(process, settings, move):
    noise = Noise.of_samples(0, samples=range(40))
    x = process.prior(40, 2, noise=noise)
    got = SamplerConfig(steps=5, **settings).draw(process, World(V), x, noise=noise).tokens
    tail = {k: v for k, v in settings.items() if k == "tail"}
    assert got.equal(walked(process, move, 40, **tail))


@pytest.mark.parametrize("process", [MASKED, UNIFORM], ids=["mdlm", "udlm"])
def test_a_plain_chain_is_the_ancestral_sampler(process):
    settings = {"temperature": 0.6, "nucleus": 0.8, "tail": "greedy"}
    drawn = []
    for draw in (
        lambda x, noise: SamplerConfig(steps=3, **settings).draw(process, World(V), x, noise=noise),
        lambda x, noise: sample_ancestral(
            process, World(V), x, uniform_grid(3), noise=noise, **settings
        ),
    ):
        noise = Noise.of_samples(0, samples=range(30))
        drawn.append(draw(process.prior(30, 2, noise=noise), noise))
    assert drawn[0].tokens.equal(drawn[1].tokens)
    assert drawn[0].evaluations.equal(drawn[1].evaluations)
