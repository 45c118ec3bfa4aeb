"""Offloading moves state to the CPU and changes no bit."""

from typing import Any

import pytest

from idlm_ds.engine.dist import World
from idlm_ds.train.step import train_step

from . import toy
from .harness import run_ranks

pytestmark = pytest.mark.dist

PHASES, ACCUMULATION = 6, 2
ON_CPU = {"device": "cpu", "pin_memory": False}


def _distil(world: World, stage: int, zero: dict[str, Any]) -> dict[str, Any]:
    """Three engines, several passes an update, as plain values and tensors."""
    program = toy.start_program(
        world, toy.engine_json(stage, **zero), accumulation=ACCUMULATION, clip=1.0
    )
    results = [
        train_step(program, step, batch, is_logged=True)
        for step, batch in enumerate(toy.make_loader(world, ACCUMULATION).batches(0, PHASES))
    ]
    return {
        "losses": [r.loss for r in results],
        "norms": [r.report.grad_norm for r in results],
        "state": toy.state_of(world, program.learners),
    }


@pytest.mark.parametrize(
    ("stage", "size", "offloaded"),
    [
        (2, 2, ["offload_optimizer"]),
        pytest.param(1, 2, ["offload_optimizer"], marks=pytest.mark.slow),
        pytest.param(2, 1, ["offload_optimizer"], marks=pytest.mark.slow),
        pytest.param(3, 2, ["offload_optimizer"], marks=pytest.mark.slow),
        pytest.param(3, 2, ["offload_param"], marks=pytest.mark.slow),
        pytest.param(3, 1, ["offload_optimizer", "offload_param"], marks=pytest.mark.slow),
    ],
)
def test_offloaded_state_learns_the_same(stage: int, size: int, offloaded: list[str]):
    """Stage 2 once lost every gradient on its way to the CPU, with a norm of 0 and no word."""
    kept = run_ranks(_distil, size, stage, {})[0]
    moved = run_ranks(_distil, size, stage, dict.fromkeys(offloaded, ON_CPU))[0]
    assert min(moved["norms"]) > 0
    assert moved["losses"] == pytest.approx(kept["losses"], rel=1e-6, abs=1e-6)
    assert moved["norms"] == pytest.approx(kept["norms"], rel=1e-5)
    assert moved["state"].keys() == kept["state"].keys()
    for name, value in kept["state"].items():
        assert moved["state"][name].allclose(value, rtol=1e-5, atol=1e-6), name
