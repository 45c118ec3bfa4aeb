import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Process
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.udlm import UDLM
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.samplers.reference import ReferenceStep
from idlm_ds.samplers.reverse import Sampled, sample_reverse
from idlm_ds.samplers.score import Analytic, Euler
from idlm_ds.samplers.truncation import Truncation
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


def chain(process: Process, reverse_step, samples: int, steps: int = 5, **settings) -> Sampled:
    noise = Noise.of_samples(0, samples=range(samples))
    x = process.prior(samples, 2, noise=noise)
    times = uniform_grid(steps)
    return sample_reverse(process, reverse_step, World(V), x, times, noise=noise, **settings)


@pytest.mark.parametrize(
    ("process", "settings", "reverse_step"),
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
def test_a_chain_takes_the_step_it_names_on_the_uniform_grid(process, settings, reverse_step):
    noise = Noise.of_samples(0, samples=range(40))
    x = process.prior(40, 2, noise=noise)
    got = SamplerConfig(steps=5, **settings).draw(process, World(V), x, noise=noise).tokens
    tail = {k: v for k, v in settings.items() if k == "tail"}
    assert got.equal(chain(process, reverse_step, 40, **tail).tokens)


@pytest.mark.parametrize("process", [MASKED, UNIFORM], ids=["mdlm", "udlm"])
def test_temperature_nucleus_and_tail_are_those_of_the_chain(process):
    config = SamplerConfig(steps=3, temperature=0.6, nucleus=0.8, tail="greedy")
    noise = Noise.of_samples(0, samples=range(30))
    drawn = config.draw(process, World(V), process.prior(30, 2, noise=noise), noise=noise)
    truncation = Truncation(process, temperature=0.6, nucleus=0.8)
    expected = chain(process, process.step, 30, 3, truncation=truncation, tail="greedy")
    assert drawn.tokens.equal(expected.tokens)
    assert drawn.evaluations.equal(expected.evaluations)


class Recording(Noise):
    """Keeps the precisions in which uniform numbers are drawn."""

    def __init__(self, seeds) -> None:
        super().__init__(seeds)
        self.dtypes: set[torch.dtype] = set()

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        drawn = super().uniform(*shape, dtype=dtype)
        self.dtypes.add(drawn.dtype)
        return drawn


@pytest.mark.parametrize(
    ("process", "settings"),
    [
        (process, {"precision": precision, "tail": tail})
        for process in (MASKED, UNIFORM)
        for precision in ("float64", "float32")
        for tail in ("ancestral", "greedy", "none")
    ]
    + [(MASKED, {"sampler": "analytic"}), (MASKED, {"sampler": "euler"})],
)
def test_tokens_are_drawn_in_the_precision_asked_for(process, settings):
    config, noise = SamplerConfig(steps=3, **settings), Recording(range(3))
    x = process.prior(3, 2, noise=Noise(range(3)))
    config.draw(process, World(V), x, noise=noise)
    assert noise.dtypes == {getattr(torch, config.precision)}
