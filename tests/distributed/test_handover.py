"""The teacher of a round is the student of its beginning, exactly, and nothing else moves."""

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from idlm_ds.engine.checkpoint import load_checkpoint, save_checkpoint
from idlm_ds.engine.dist import World
from idlm_ds.engine.handover import Handover
from idlm_ds.engine.role import Role
from idlm_ds.engine.sharing import Sharding, groups_of
from idlm_ds.noise import Noise, stratified_times
from idlm_ds.objectives.alternation import Phase
from idlm_ds.objectives.self_distillation import DCD, SDTT, Rounds, SelfDistillation
from idlm_ds.processes.base import at
from idlm_ds.train.renewal import Renewal
from idlm_ds.train.step import Program, train_step

from . import plain, toy
from .harness import run_ranks
from .test_parity import LOSS_TOLERANCE, TOLERANCE, _assert_at_rest, _everything

pytestmark = pytest.mark.dist

UPDATES, GRID = 6, 8
BOUNDARIES = {2: 1 / 4, 4: 1 / 2}
"""First updates of the second and third round, and the length of their steps."""

MID_FIRST, MID_ROUND, BOUNDARY = 1, 3, 4
"""Steps at which runs are saved."""

LAYOUTS = [
    *[(stage, 2) for stage in (2, 3)],
    *[pytest.param(stage, 1, marks=pytest.mark.slow) for stage in (1, 2, 3)],
    pytest.param(1, 2, marks=pytest.mark.slow),
]
PRECISE_LAYOUTS = [
    (3, 2, "bf16"),
    *[pytest.param(stage, 2, "fp32", marks=pytest.mark.slow) for stage in (1, 2, 3)],
    *[pytest.param(stage, 1, "fp32", marks=pytest.mark.slow) for stage in (1, 2, 3)],
    *[pytest.param(stage, 2, "bf16", marks=pytest.mark.slow) for stage in (1, 2)],
]
FAMILY = {"sdtt": "mdlm", "dcd": "duo"}


def _objective(method: str) -> SelfDistillation:
    kind = {"sdtt": SDTT, "dcd": DCD}[method]
    rounds = Rounds(updates=UPDATES, count=3, grid=GRID)
    return kind(toy.make_process(FAMILY[method]), rounds, toy.T_MIN)


def _start(
    world: World,
    stage: int,
    *,
    method: str = "sdtt",
    precision: str = "fp32",
    dropout: float = 0.0,
    sharding: Sharding = "world",
) -> tuple[Program, Handover]:
    """A teacher and a student with its weights; hosts have two ranks."""
    json, network = toy.engine_json(stage), dataclasses.replace(toy.NETWORK, dropout=dropout)
    numerics = toy.numerics_of(world, precision=precision)
    with toy.on_hosts(world, 2):
        groups = groups_of(sharding, world)
    teacher = toy.start_teacher(json, numerics, network, groups)
    weights = toy.weights_of("teacher")
    student = toy.start_learner("student", json, numerics, network, weights=weights)
    handover, objective = Handover(student, teacher), _objective(method)
    program = Program(
        method=objective,
        roles={"teacher": teacher, "student": student},
        rates={Phase.STUDENT: toy.rate_of("student")},
        settings=toy.settings_of(world),
        prepare=Renewal(objective.rounds, handover),
    )
    return program, handover


@torch.no_grad()
def _answer(role: Role) -> Tensor:
    """Also leaves some weights whole, as any use of a network at stage 3 does."""
    tokens = torch.arange(2 * toy.LENGTH).view(2, -1)
    return role.module(tokens, torch.tensor([0.5, 1.5]), at(torch.arange(tokens.numel())))


def _plain(world: World, method: str) -> dict[str, Any]:
    """The same rounds in plain PyTorch: one process, the global batch at once."""
    del world
    objective = _objective(method)
    teacher, student = plain._network("teacher"), plain._network("teacher")
    learner = plain._Learner(student, "student", clip=0.0)
    losses, norms, dt = [], [], 1 / GRID
    for step in range(UPDATES):
        if step in BOUNDARIES:
            teacher.load_state_dict(student.state_dict())
            dt = BOUNDARIES[step]
        samples = range(step * toy.GLOBAL_BATCH, (step + 1) * toy.GLOBAL_BATCH)
        tokens = torch.from_numpy(toy.make_windows().take(samples))
        t = stratified_times(toy.SEED, "t", step, count=toy.GLOBAL_BATCH, t_min=toy.T_MIN)
        noise = Noise.of_samples(toy.SEED, "noise", samples=samples)
        with learner.learning():
            nats = objective.divergence(student, teacher, tokens, t, dt, noise=noise)
            loss = nats.sum() / (toy.GLOBAL_BATCH * toy.LENGTH)
            loss.backward()
        losses.append(loss.item())
        norms.append(learner.norm())
        learner.step()
    return {"losses": losses, "norms": norms, "state": learner.state()}


@cache
def _wanted(method: str) -> dict[str, Any]:
    return run_ranks(_plain, 1, method)[0]


def _distil(world: World, stage: int, method: str) -> dict[str, Any]:
    program, handover = _start(world, stage, method=method)
    losses, norms = [], []
    for step, batch in enumerate(toy.make_loader(world).batches(0, UPDATES)):
        before = _everything(program.roles["teacher"])
        result = train_step(program, step, batch)
        after = _everything(program.roles["teacher"])
        if step in BOUNDARIES:
            assert any(not before[name].equal(after[name]) for name in before), step
        else:
            toy.assert_same(after, before, f"teacher after update {step}")
        for role in (program.roles["teacher"], program.roles["student"]):
            _assert_at_rest(role, f"update {step}, {role.name}")
        losses.append(result.loss)
        norms.append(result.report.grad_norm)
    return {"losses": losses, "norms": norms, "state": toy.state_of(world, program.learners)}


@pytest.mark.parametrize("method", FAMILY)
@pytest.mark.parametrize(("stage", "size"), LAYOUTS)
def test_rounds_on_engines_are_rounds_in_plain_torch(stage: int, size: int, method: str):
    wanted = _wanted(method)
    assert min(wanted["losses"]) > 1e-3
    for rank, answer in enumerate(run_ranks(_distil, size, stage, method)):
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


def _untouched(program: Program, action: Callable[[], None]) -> None:
    """Run a collective that must leave every number of the student as it is."""
    before = _everything(program.roles["student"])
    action()
    toy.assert_same(_everything(program.roles["student"]), before, "student")


def _hand_over(world: World, stage: int, precision: str, sharding: Sharding = "world") -> None:
    program, handover = _start(world, stage, precision=precision, sharding=sharding)
    teacher, student = program.roles["teacher"], program.roles["student"]
    batches = list(toy.make_loader(world).batches(0, 3))
    for batch in batches[:2]:
        train_step(program, 0, batch)
    at_first = _answer(teacher)

    _untouched(program, handover.take)
    taken = _answer(teacher)
    assert taken.equal(_answer(student))
    assert not taken.equal(at_first)
    raw = toy.state_of(world, program.learners)
    for name, weight in toy.gather_weights(teacher, is_first=world.is_first).items():
        assert weight.equal(raw[f"student/weight/{name}"].to(weight.dtype)), name

    train_step(program, 0, batches[2])
    assert _answer(teacher).equal(taken)
    assert not _answer(student).equal(taken)

    teacher.reload(toy.weights_of("fake"))
    assert not _answer(teacher).equal(taken)
    kept = [shard.clone() for shard in student.kept["handover"]]
    _untouched(program, handover.renew)
    assert _answer(teacher).equal(taken)
    assert all(map(torch.equal, student.kept["handover"], kept))
    assert train_step(program, 0, batches[0]).report.was_applied


@pytest.mark.parametrize(("stage", "size", "precision"), PRECISE_LAYOUTS)
def test_the_teacher_computes_what_the_student_did_when_it_was_taken(
    stage: int, size: int, precision: str
):
    run_ranks(_hand_over, size, stage, precision)


@pytest.mark.parametrize(
    ("size", "precision", "sharding"),
    [
        (2, "bf16", "none"),
        pytest.param(2, "fp32", "none", marks=pytest.mark.slow),
        pytest.param(4, "fp32", "node", marks=pytest.mark.slow),
    ],
)
def test_a_teacher_that_is_not_cut_like_the_student_takes_over_its_weights_as_well(
    size: int, precision: str, sharding: Sharding
):
    run_ranks(_hand_over, size, 3, precision, sharding)


def _run(
    world: World, stage: int, precision: str, root: Path | None, resume: Path | None
) -> dict[str, Any]:
    """Losses, the teacher at every update, and the student at the end."""
    program, handover = _start(world, stage, precision=precision, dropout=0.2)
    start = int(load_checkpoint(resume, program.learners)["step"]) if resume else 0
    losses, teachers = [], {}
    for step, batch in enumerate(toy.make_loader(world).batches(start, UPDATES), start=start):
        losses.append(train_step(program, step, batch, is_logged=True).loss)
        teachers[step] = toy.gather_weights(program.roles["teacher"], is_first=world.is_first)
        if root and step + 1 in (MID_FIRST, MID_ROUND, BOUNDARY):
            save_checkpoint(root, step + 1, program.learners, {}, world=world, keep=9)
    return {
        "losses": losses,
        "teachers": teachers,
        "state": toy.state_of(world, program.learners),
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """One whole run of each kind that left checkpoints, made when first asked for."""

    @cache
    def get(stage: int, size: int, precision: str = "fp32") -> tuple[Path, dict[str, Any]]:
        root = tmp_path_factory.mktemp("whole")
        return root, run_ranks(_run, size, stage, precision, root, None)[0]

    return get


@pytest.mark.parametrize(("stage", "size", "precision"), PRECISE_LAYOUTS)
def test_a_run_resumed_in_a_round_or_between_two_is_the_uninterrupted_run(
    stage: int, size: int, precision: str, uninterrupted
):
    root, whole = uninterrupted(stage, size, precision)
    for step in (MID_FIRST, MID_ROUND, BOUNDARY):
        resume = root / f"step-{step}"
        resumed = run_ranks(_run, size, stage, precision, None, resume)[0]
        assert resumed["losses"] == whole["losses"][step:], step
        toy.assert_same(resumed["state"], whole["state"], f"resumed at {step}")
        for later, teacher in resumed["teachers"].items():
            toy.assert_same(teacher, whole["teachers"][later], f"resumed at {step}, {later}")


def _renewed(world: World, folder: Path, stage: int) -> dict[str, Any]:
    """Teacher and student of a run that was just loaded."""
    program, handover = _start(world, stage)
    load_checkpoint(folder, program.learners)
    handover.renew()
    state = toy.state_of(world, program.learners)
    return {
        "teacher": toy.gather_weights(program.roles["teacher"], is_first=world.is_first),
        "student": {k.split("/")[2]: v for k, v in state.items() if "/weight/" in k},
    }


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ((3, 2), (1, 1)),
        ((1, 1), (3, 2)),
        pytest.param((2, 2), (3, 1), marks=pytest.mark.slow),
        pytest.param((3, 1), (2, 2), marks=pytest.mark.slow),
    ],
    ids=lambda case: "zero{}x{}".format(*case),
)
def test_another_layout_goes_on_against_the_teacher_of_the_round(
    written: tuple[int, int], read: tuple[int, int], uninterrupted
):
    root, whole = uninterrupted(*written)
    got = run_ranks(_renewed, read[1], root / f"step-{MID_ROUND}", read[0])[0]
    toy.assert_same(got["teacher"], whole["teachers"][MID_ROUND], "teacher")
    assert not any(got["teacher"][name].equal(w) for name, w in got["student"].items())


def _put_back(world: World, stage: int) -> None:
    program, handover = _start(world, stage)
    at_first = _answer(program.roles["teacher"])
    for step, batch in enumerate(toy.make_loader(world).batches(0, 3)):
        train_step(program, step, batch)
    assert not _answer(program.roles["teacher"]).equal(at_first)
    _untouched(program, lambda: program.roles["teacher"].reload(toy.weights_of("teacher")))
    assert _answer(program.roles["teacher"]).equal(at_first)
    assert not hasattr(program.roles["student"], "reload"), "its optimizer would not know"


@pytest.mark.parametrize(("stage", "size"), [(1, 1), (2, 2), (3, 1), (3, 2)])
def test_the_original_teacher_can_be_put_back(stage: int, size: int):
    run_ranks(_put_back, size, stage)
