"""Blockwise sampling as settings, like a chain's."""

from typing import get_args

import pytest
import torch

from idlm_ds.noise import Noise
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.udlm import UDLM
from idlm_ds.registry.samplers import REMASKINGS
from idlm_ds.samplers.batched import sample_batched
from idlm_ds.samplers.block_config import BlockwiseConfig
from idlm_ds.samplers.blockwise import Remasking, sample_blockwise
from idlm_ds.schedules.loglinear import LogLinear
from tests.samplers.test_batched import LENGTH, PROCESS, Counting

CONFIG = BlockwiseConfig(steps=6, block=3, remasking="random", temperature=0.7)


def batched(batch: int, config: BlockwiseConfig = CONFIG) -> torch.Tensor:
    shared = {"length": LENGTH, "seed": 5, "stream": "eval", "batch": batch}
    return sample_batched(PROCESS, Counting(), range(4), config, **shared).tokens


def test_a_set_is_what_the_sampler_draws_from_an_empty_prompt():
    noise = Noise.of_samples(5, "eval", samples=range(4))
    empty = torch.zeros(4, 0, dtype=torch.long)
    settings = {"length": LENGTH, "block": 3, "steps": 6, "temperature": 0.7}
    wanted = sample_blockwise(
        PROCESS, Counting(), empty, noise=noise, remasking="random", **settings
    ).tokens
    for batch in (1, 3, 4):
        assert batched(batch).equal(wanted)


def test_every_setting_reaches_the_sampler():
    drawn = batched(4)
    for change in ({"steps": 9}, {"block": 1, "steps": 9}, {"remasking": "low_confidence"}):
        fields = {"steps": 6, "block": 3, "remasking": "random", "temperature": 0.7}
        assert not batched(4, BlockwiseConfig(**{**fields, **change})).equal(drawn)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"block": 4}, "block: must divide length 9, got 4"),
        ({"steps": 4}, "steps: must divide into 3 blocks, got 4"),
        ({"temperature": -1.0}, "temperature: must be 0 or more, got -1.0"),
    ],
)
def test_settings_that_do_not_fit_are_named(change, line):
    fields = {"steps": 6, "block": 3, "remasking": "random"}
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is compared)
        BlockwiseConfig(**{**fields, **change}).check(PROCESS, LENGTH)
    assert str(caught.value) == line


def test_only_masked_families_have_it():
    schedule = LogLinear(eps=1e-3)
    CONFIG.check(MDLM(vocab_size=5, schedule=schedule, mask_id=4), LENGTH)
    with pytest.raises(ValueError, match="^sampler: blockwise needs a masked family"):
        CONFIG.check(UDLM(vocab_size=5, schedule=schedule), LENGTH)


def test_the_names_of_remaskings_are_those_the_sampler_knows():
    assert get_args(Remasking) == REMASKINGS
