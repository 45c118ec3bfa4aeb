"""The running mean is what is looked at and exported, and looking leaves no trace."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from idlm_ds.engine.dist import World
from idlm_ds.processes.base import at
from idlm_ds.train.step import train_step

from ..tolerances import assert_close
from . import toy
from .harness import run_ranks

pytestmark = pytest.mark.dist

PHASES = 6


def _distil(world: World, stage: int, looks: bool) -> dict[str, Any]:
    program = toy.start_program(world, toy.engine_json(stage))
    for step, batch in enumerate(toy.make_loader(world).batches(0, PHASES)):
        train_step(program, step, batch)
        if looks:
            state = toy.state_of(world, program.learners)
            for name, role in program.learners.items():
                with role.ema.in_place():
                    seen = _answer(role.module)
                wanted = _answer(_plain_mean(state, name))
                assert_close(seen, wanted)
    state = toy.state_of(world, program.learners)
    exported = {
        n: toy.gather_weights(r, is_first=world.is_first) for n, r in program.learners.items()
    }
    toy.assert_same(toy.state_of(world, program.learners), state, "after an export")
    return {"state": state, "exported": exported}


def _plain_mean(state: dict[str, Tensor], role: str) -> nn.Module:
    return toy.plain_network(lambda name, shape: state[f"{role}/ema/{name}"])


@torch.no_grad()
def _answer(network: nn.Module) -> Tensor:
    tokens = torch.arange(2 * toy.LENGTH).view(2, -1)
    return network(tokens, torch.tensor([0.5, 1.5]), at(torch.arange(tokens.numel())))


@cache
def _untouched(size: int, stage: int) -> list[dict[str, Any]]:
    return run_ranks(_distil, size, stage, False)


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 2, 3])
def test_looking_at_the_running_mean_does_not_change_training(stage: int, size: int):
    looked_at = run_ranks(_distil, size, stage, True)
    toy.assert_same(looked_at[0]["state"], _untouched(size, stage)[0]["state"], "after looking")


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_an_export_is_the_whole_running_mean_on_the_first_rank(stage: int, size: int):
    answers = _untouched(size, stage)
    for role, weights in answers[0]["exported"].items():
        prefix = f"{role}/ema/"
        means = {k: v for k, v in answers[0]["state"].items() if k.startswith(prefix)}
        toy.assert_same({prefix + n: w for n, w in weights.items()}, means, role)
    assert all(not any(a["exported"].values()) for a in answers[1:])
