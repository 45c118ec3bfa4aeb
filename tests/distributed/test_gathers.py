"""What ZeRO-3 gathers for three networks that learn, transmit and are sampled in turn."""

import contextlib
import io
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import deepspeed
import pytest

from idlm_ds.data.loader import Loader
from idlm_ds.engine.config import EngineJson
from idlm_ds.engine.dist import World
from idlm_ds.engine.gathers import CHECKED
from idlm_ds.models.dit import DiT, DiTConfig
from idlm_ds.objectives.alternation import Alternation
from idlm_ds.objectives.base import Method, StepLoss
from idlm_ds.samplers.batched import sample_batched
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.train.step import Program, train_step

from . import toy
from .gather_count import GatherCount
from .harness import run_ranks

pytestmark = pytest.mark.dist

NETWORK = DiTConfig(
    vocab_size=toy.VOCAB, hidden=32, blocks=3, heads=2, cond=16, mlp_ratio=2, time_conditioning=True
)
BLOCK = sum(p.numel() for p in DiT(NETWORK).blocks[0].parameters())
SIZE = sum(p.numel() for p in DiT(NETWORK).parameters())

BATCH = 16
PLAN = Alternation(fake_steps=1)
CYCLES = 3
SETTLED = 2 * PLAN.cycle
"""The phase from which every use of every network has a trace."""

UNKNOWN = "0.0.1"
"""A release of DeepSpeed on which each network keeps its one trace."""


def _json() -> EngineJson:
    """Limits of less than a block ahead and less than two live, so that order matters."""
    return toy.engine_json(
        3,
        stage3_prefetch_bucket_size=SIZE * 23 // 100,
        stage3_max_live_parameters=SIZE * 55 // 100,
        stage3_param_persistence_threshold=100,
        sub_group_size=SIZE,
        reduce_bucket_size=SIZE,
    )


class _Watched:
    """A method that notes, before each pass, what the last one left whole."""

    def __init__(self, method: Method, count: GatherCount) -> None:
        self._method, self._count = method, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    def loss(self, *args: Any) -> StepLoss:
        self._count.look()
        return self._method.loss(*args)


def _distil(
    world: World,
    family: str,
    accumulation: int,
    release: str,
    *,
    checkpoint_activations: bool = False,
    is_sampled: bool = False,
) -> dict[str, Any]:
    """Train for some cycles, on a release of DeepSpeed; figures of each phase."""
    network = replace(NETWORK, checkpoint_activations=checkpoint_activations)
    with patch.object(deepspeed, "__version__", release):
        program = toy.start_program(world, _json(), family=family, network=network)
    micro_batch = BATCH // (world.size * accumulation)
    loader = Loader(
        toy.make_windows(),
        global_batch=BATCH,
        micro_batch=micro_batch,
        rank=world.rank,
        world=world.size,
        device=world.device,
        prefetch=2,
    )
    results, gathers = [], []
    with GatherCount(program.roles) as count:
        watched = replace(
            program,
            method=_Watched(replace(program.method, plan=PLAN), count),
            settings=replace(program.settings, global_batch=BATCH),
        )
        for step, batch in enumerate(loader.batches(0, CYCLES * PLAN.cycle)):
            count.clear()
            # A phase whose value is wanted must gather like one of which only the gradient is.
            result = train_step(watched, step, batch, is_logged=step % 2 == 0)
            count.look()
            if is_sampled:
                _sample(program, world)
                count.look()
            results.append([result.loss, result.report.grad_norm])
            gathers.append(count.state())
    state = toy.state_of(world, program.learners)
    return {"results": results, "gathers": gathers, "state": state}


def _sample(program: Program, world: World) -> None:
    """Draw from the averaged student, as a preview does, and from the teacher."""
    student, teacher = program.learners["student"], program.roles["teacher"]
    for network, weights in (
        (student, student.ema.in_place()),
        (teacher, contextlib.nullcontext()),
    ):
        with weights:
            sample_batched(
                program.method.process,
                network.module,
                range(2 * world.rank, 2 * world.rank + 2),
                SamplerConfig(steps=3),
                length=toy.LENGTH,
                seed=1,
                stream="preview",
                batch=2,
            )


def _both(world: World, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {
        "traces": _distil(world, *args, CHECKED[-1], **kwargs),
        "one trace": _distil(world, *args, UNKNOWN, **kwargs),
    }


def _with_checkpointing(world: World, *args: Any) -> dict[str, Any]:
    return _both(world, *args, checkpoint_activations=True)


def _assert_same_numbers(answer: dict[str, Any]) -> None:
    """Bit for bit."""
    ours, theirs = answer["traces"], answer["one trace"]
    assert ours["results"] == theirs["results"]
    toy.assert_same(ours["state"], theirs["state"], "another order of gathers")


def _assert_settled(phases: list[dict[str, Any]]) -> None:
    """Nothing is gathered late, again or for longer than a pass."""
    for step, phase in enumerate(phases):
        assert phase["invalidations"] == 0, step
        assert max(phase["left"]) <= BLOCK, step
        if step >= SETTLED:
            assert phase["on_demand"] == 0, step
            assert phase["ahead"] >= 2 * SIZE * 0.9, f"step {step}: not all was counted"


def _traffic(phases: list[dict[str, Any]]) -> int:
    kinds = ("ahead", "on_demand", "elsewhere")
    return sum(phase[kind] for phase in phases[SETTLED:] for kind in kinds)


CASES = [
    *[("mdlm", 1), ("duo", 2)],
    *[
        pytest.param(family, count, marks=pytest.mark.slow)
        for family, count in (
            ("mdlm", 2),
            ("mdlm", 8),
            ("duo", 1),
            ("duo", 8),
            ("dmd", 1),
            ("dmd", 2),
        )
    ],
]


@pytest.mark.parametrize(("family", "accumulation"), CASES)
def test_a_trace_for_each_use_changes_when_weights_are_gathered_and_no_number(
    family: str, accumulation: int
):
    for answer in run_ranks(_both, 2, family, accumulation):
        _assert_same_numbers(answer)
        ours, theirs = answer["traces"]["gathers"], answer["one trace"]["gathers"]
        _assert_settled(ours)
        # What was lent is given back after every pass in any case.
        assert all(max(phase["left"]) <= BLOCK for phase in theirs)
        assert all(len(phase["left"]) == accumulation + 1 for phase in theirs)
        assert _traffic(ours) < 0.95 * _traffic(theirs)
        late = sum(phase["on_demand"] for phase in theirs[SETTLED:])
        assert late > SIZE, "nothing was to be gained"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mdlm", "duo"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_activations_computed_twice_have_a_trace_too(family: str, accumulation: int):
    for answer in run_ranks(_with_checkpointing, 2, family, accumulation):
        _assert_same_numbers(answer)
        _assert_settled(answer["traces"]["gathers"])


def _with_and_without_samples(world: World) -> dict[str, Any]:
    return {
        "sampled": _distil(world, "mdlm", 2, CHECKED[-1], is_sampled=True),
        "not sampled": _distil(world, "mdlm", 2, CHECKED[-1]),
    }


def test_samples_between_phases_leave_the_traces_of_training_alone():
    for answer in run_ranks(_with_and_without_samples, 2):
        sampled, other = answer["sampled"], answer["not sampled"]
        assert sampled["results"] == other["results"]
        _assert_settled(sampled["gathers"])
        for with_samples, without in zip(sampled["gathers"], other["gathers"], strict=True):
            assert with_samples["ahead"] > without["ahead"] + 4 * SIZE


def _said(world: World) -> list[str]:
    """Return what starts of three engines print, one after the other in one process."""
    lines = []
    for release, stage in ((UNKNOWN, 2), (f"{CHECKED[-1]}+git", 3), (UNKNOWN, 3), (UNKNOWN, 3)):
        with (
            patch.object(deepspeed, "__version__", release),
            contextlib.redirect_stdout(io.StringIO()) as output,
        ):
            toy.start_program(world, toy.engine_json(stage))
        lines.append(output.getvalue())
    return lines


def test_a_release_of_deepspeed_that_was_not_checked_is_named_once():
    first, second = run_ranks(_said, 2)
    assert second == [""] * 4
    line = (
        "engines: DeepSpeed 0.0.1 has not been checked (only 0.19.8): one trace of gathers a "
        "network, slower, with the same numbers\n"
    )
    assert first == ["", "", line, ""]
    assert len(line) <= 200
