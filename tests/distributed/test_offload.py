"""Offloading moves state to the CPU and changes no bit."""

import io
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from torch import Tensor

from idlm_ds.engine import cpu_adam
from idlm_ds.engine.checkpoint import load_checkpoint, save_checkpoint
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


def _with_deepspeeds_adam(world: World, stage: int, folder: Path) -> dict[str, Any]:
    """A run as from a GPU, and the same resumed in its middle; both states, or why not."""
    if problem := cpu_adam.build_operator() or cpu_adam._load():
        return {"problem": problem}
    middle = PHASES // 2
    json = toy.engine_json(stage, offload_optimizer=ON_CPU)
    with (
        patch.object(cpu_adam, "has_gpu", return_value=True),
        patch.object(cpu_adam, "operator_problem", return_value=""),
    ):
        whole, again = toy.start_program(world, json), toy.start_program(world, json)
    for learner in whole.learners.values():
        assert type(learner._engine.optimizer.optimizer) is cpu_adam.CpuAdam
    for step, batch in enumerate(toy.make_loader(world).batches(0, PHASES)):
        train_step(whole, step, batch)
        if step + 1 == middle:
            save_checkpoint(folder, middle, whole.learners, {}, world=world, keep=1)
    load_checkpoint(folder / f"step-{middle}", again.learners)
    for step, batch in enumerate(toy.make_loader(world).batches(middle, PHASES), start=middle):
        train_step(again, step, batch)
    return {
        "problem": "",
        "whole": toy.state_of(world, whole.learners),
        "again": toy.state_of(world, again.learners),
    }


def _with_torchs_adam(world: World, stage: int) -> dict[str, Tensor]:
    program = toy.start_program(world, toy.engine_json(stage, offload_optimizer=ON_CPU))
    for step, batch in enumerate(toy.make_loader(world).batches(0, PHASES)):
        train_step(program, step, batch)
    return toy.state_of(world, program.learners)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeeds_adam_learns_the_same_and_resumes_exactly(stage: int, tmp_path: Path):
    done = run_ranks(_with_deepspeeds_adam, 2, stage, tmp_path)[0]
    if done["problem"]:
        pytest.skip(f"DeepSpeed's operator {done['problem']}")
    toy.assert_same(done["again"], done["whole"], "resumed")
    plain = run_ranks(_with_torchs_adam, 2, stage)[0]
    assert plain.keys() == done["whole"].keys()
    for name, value in plain.items():
        assert (done["whole"][name] - value).norm() <= 1e-5 * value.norm() + 1e-6, name


def _where_nothing_compiles(world: World, folder: Path) -> tuple[str, str, str]:
    """What is said of the operator, asked for and printed, and which optimizer is used instead."""
    os.environ |= {"TORCH_EXTENSIONS_DIR": str(folder), "CXX": "/nowhere/c++"}
    printed = io.StringIO()
    json = toy.engine_json(2, offload_optimizer=ON_CPU)
    with patch.object(cpu_adam, "has_gpu", return_value=True), redirect_stdout(printed):
        fake = toy.start_learner("fake", json, toy.numerics_of(world))
    used = type(fake._engine.optimizer.optimizer).__name__
    return cpu_adam.operator_problem(), printed.getvalue(), used


def test_a_stale_lock_and_no_compiler_mean_torchs_optimizer_and_one_line(tmp_path: Path):
    """Only the first rank of a node would build; all go by what it found."""
    (tmp_path / "cpu_adam").mkdir()
    (tmp_path / "cpu_adam" / "lock").touch()
    first, second = run_ranks(_where_nothing_compiles, 2, tmp_path)
    problem = "cannot be built without /nowhere/c++"
    line = f"optimizer on the CPU: torch's AdamW, as DeepSpeed's {problem}\n"
    assert first == (problem, line, "AdamW")
    assert second == (problem, "", "AdamW")
