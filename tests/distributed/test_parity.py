"""Three engines do what plain PyTorch does, and only the learning one is touched."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from torch import Tensor

from idlm_ds.engine.dist import World
from idlm_ds.engine.role import Role, TrainedRole
from idlm_ds.engine.trio import one_learns
from idlm_ds.models.dit import DiT
from idlm_ds.objectives.alternation import Phase
from idlm_ds.train.step import train_step

from . import plain, toy
from .harness import run_ranks

pytestmark = pytest.mark.dist

PHASES = 6
TOLERANCE = {"weight": 1e-6, "ema": 1e-6, "exp_avg": 1e-5, "exp_avg_sq": 1e-5}
"""Absolute, float32; a weight moves by up to 0.02."""

LOSS_TOLERANCE = 1e-5
"""Relative and absolute, float32; also that of gradient norms."""


@cache
def _plain(family: str, clip: float, is_adapted: bool = False) -> dict[str, Any]:
    distil = plain_adapters if is_adapted else plain.distil
    (answer,) = run_ranks(distil, 1, family, clip, PHASES)
    return answer


def _distil(
    world: World,
    stage: int,
    accumulation: int,
    family: str,
    clip: float,
    checkpoint_activations: bool = False,
    is_adapted: bool = False,
) -> dict[str, Any]:
    program = toy.start_program(
        world,
        toy.engine_json(stage),
        family=family,
        accumulation=accumulation,
        clip=clip,
        network=replace(toy.NETWORK, checkpoint_activations=checkpoint_activations),
        trainable=toy.is_adapted if is_adapted else lambda name: True,
    )
    losses, norms, rates = [], [], []
    for step, batch in enumerate(toy.make_loader(world, accumulation).batches(0, PHASES)):
        learns = program.method.plan.phase(step).value
        before = {n: _everything(role) for n, role in program.roles.items() if n != learns}
        result = train_step(program, step, batch, is_logged=True)
        for name, role in program.roles.items():
            where = f"phase {step} ({learns} learns), {name}"
            if name in before:
                toy.assert_same(before[name], _everything(role), where)
            _assert_at_rest(role, where)
        losses.append(result.loss)
        norms.append(result.report.grad_norm)
        rates.append(result.report.lr)
    state = toy.state_of(world, program.learners)
    return {"losses": losses, "norms": norms, "rates": rates, "state": state}


def _everything(role: Role) -> dict[str, Tensor]:
    """Copies of all numbers this rank holds for a network."""
    parameters = role.module.named_parameters()
    kept = {n: getattr(p, "ds_tensor", p).detach().clone() for n, p in parameters}
    if not isinstance(role, TrainedRole):
        return kept
    zero = role._engine.optimizer
    for i, (weight, mean) in enumerate(zip(role.shards.weights, role.ema.buffers, strict=True)):
        adam = zero.optimizer.state.get(weight, {})
        for kind, value in {"weight": weight, "ema": mean, **adam}.items():
            kept[f"{kind}/{i}"] = value.detach().clone()
    if role.shards.is_stage_3:
        kept["gradient"] = zero.grad_partitions_flat_buffer.clone()
    return kept


def _assert_at_rest(role: Role, where: str) -> None:
    """Between phases no parameter takes or holds a gradient and no weight is left gathered."""
    assert not role.module.training, f"{where} still drops out"
    for name, parameter in role.module.named_parameters():
        assert not parameter.requires_grad, f"{where}: {name} still takes a gradient"
        assert parameter.grad is None, f"{where}: {name} holds a gradient"
        if hasattr(parameter, "ds_status") and not parameter.ds_persist:
            status = parameter.ds_status
            assert status is ZeroParamStatus.NOT_AVAILABLE, f"{where}: {name} is {status}"
    if isinstance(role, TrainedRole):
        held = role._engine.optimizer.averaged_gradients.values()
        assert all(g is None for g in held), f"{where}: the engine holds a gradient"
        assert all(w.grad is None for w in role.shards.weights), (
            f"{where}: a shard holds a gradient"
        )


@pytest.mark.parametrize(
    ("family", "clip"),
    [("mdlm", 0.0), ("duo", 0.1), pytest.param("dmd", 0.0, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("accumulation", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_engines_do_what_plain_torch_does(
    stage: int, size: int, accumulation: int, family: str, clip: float
):
    wanted = _plain(family, clip)
    assert clip < min(wanted["norms"]), "clipping would go unnoticed"
    assert wanted["num_visible"] > 0, "no sequence without a mask: an edge is not tested"
    _assert_agree(run_ranks(_distil, size, stage, accumulation, family, clip), wanted)


@pytest.mark.parametrize("family", ["duo 2", pytest.param("mdlm 2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_several_noisings_of_a_sample_are_those_of_plain_torch(stage: int, family: str):
    """Teacher and fake are gathered and run several times inside the student's projection."""
    wanted = _plain(family, 0.0)
    assert wanted["losses"] != _plain(family.partition(" ")[0], 0.0)["losses"]
    _assert_agree(run_ranks(_distil, 2, stage, 2, family, 0.0), wanted)


@pytest.mark.parametrize("family", ["mdlm", "duo"])
@pytest.mark.parametrize("stage", [2, 3])
def test_computing_activations_twice_changes_nothing(stage: int, family: str):
    answers = run_ranks(_distil, 2, stage, 2, family, 0.0, True)
    _assert_agree(answers, _plain(family, 0.0))


def plain_adapters(world: World, family: str, clip: float, phases: int) -> dict[str, object]:
    return plain.distil(world, family, clip, phases, is_adapted=True)


@pytest.mark.parametrize("family", ["mdlm", "duo"])
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_role_of_which_one_parameter_in_a_hundred_learns(stage: int, size: int, family: str):
    """Its gradients, moments, mean and checkpoint are of those parameters; the rest stays."""
    wanted = _plain(family, 0.0, True)
    parameters = dict(DiT(toy.NETWORK).named_parameters())
    share = sum(parameters[n].numel() for n in toy.ADAPTED) / sum(
        p.numel() for p in parameters.values()
    )
    assert 0.01 < share < 0.02
    assert {name.split("/")[2] for name in wanted["state"]} == set(toy.ADAPTED)
    _assert_agree(run_ranks(_distil, size, stage, 1, family, 0.0, False, True), wanted)


def _assert_agree(answers: Sequence[dict[str, Any]], wanted: dict[str, Any]) -> None:
    for rank, answer in enumerate(answers):
        assert answer["rates"] == wanted["rates"]
        for key in ("losses", "norms"):
            assert answer[key] == pytest.approx(
                wanted[key], rel=LOSS_TOLERANCE, abs=LOSS_TOLERANCE
            ), f"{key} on rank {rank}"
        assert answer["state"].keys() == wanted["state"].keys()
        for name, value in wanted["state"].items():
            off = (answer["state"][name] - value).abs().max().item()
            assert off <= TOLERANCE[name.split("/")[1]], (
                f"{name} on rank {rank} is off by {off:.1e}"
            )


def _who_learns(world: World) -> dict[str, list[str]]:
    program = toy.start_program(world, toy.engine_json(1))
    answers = {}
    for phase in (Phase.FAKE, Phase.STUDENT):
        with one_learns(program.roles, phase.learner):
            for use, is_on in {
                "drops out": lambda network: network.training,
                "takes gradients": lambda network: any(
                    p.requires_grad for p in network.parameters()
                ),
            }.items():
                users = [n for n, r in program.roles.items() if is_on(r.module)]
                answers[f"{phase.value} {use}"] = users
    return answers


def test_only_the_learning_network_drops_out_and_takes_gradients():
    (answers,) = run_ranks(_who_learns, 1)
    for question, users in answers.items():
        assert users == [question.split()[0]], question
