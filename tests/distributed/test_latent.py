"""A student with a latent on engines: learnt as in plain torch, resumed, drawn on any rank."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from idlm_ds.build.latent import WithProjection, with_latent
from idlm_ds.build.networks import known_network
from idlm_ds.checkpoints.model_folder import NetworkCard
from idlm_ds.engine.checkpoint import load_checkpoint, save_checkpoint
from idlm_ds.engine.dist import World
from idlm_ds.engine.role import start_trained
from idlm_ds.recipes.student import LatentSection
from idlm_ds.samplers.batched import sample_batched
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.train.step import train_step

from . import plain, toy
from .harness import run_ranks
from .test_parity import _assert_agree

pytestmark = pytest.mark.dist

PHASES, SIZE, MID_CYCLE = 6, 5, 4
PROJECTION = "latent_map.weight"


def _distil(
    world: World,
    stage: int,
    family: str = "mdlm",
    accumulation: int = 1,
    precision: str = "fp32",
    resume: Path | None = None,
    save_in: Path | None = None,
) -> dict[str, Any]:
    program = toy.start_program(
        world,
        toy.engine_json(stage),
        family=family,
        accumulation=accumulation,
        precision=precision,
        latent=SIZE,
    )
    student = program.learners["student"]
    start = int(load_checkpoint(resume, program.learners)["step"]) if resume else 0
    losses, norms, rates = [], [], []
    batches = toy.make_loader(world, accumulation).batches(start, PHASES)
    for step, batch in enumerate(batches, start=start):
        result = train_step(program, step, batch, is_logged=True)
        losses.append(result.loss)
        norms.append(result.report.grad_norm)
        rates.append(result.report.lr)
        if save_in is not None and step + 1 == MID_CYCLE:
            save_checkpoint(save_in, step + 1, program.learners, {}, world=world, keep=9)
    with student.ema.in_place():
        samples = range(world.rank, 6, world.size)
        drawn = sample_batched(
            program.method.process,
            student.module,
            samples,
            SamplerConfig(steps=2, latent=SIZE),
            length=toy.LENGTH,
            seed=1,
            stream="test",
            batch=3 if world.size == 1 else 2,
        ).tokens
    tokens = {i: row for share in world.gather(dict(zip(samples, drawn.tolist(), strict=True)))
              for i, row in share.items()}  # fmt: skip
    return {
        "losses": losses,
        "norms": norms,
        "rates": rates,
        "state": toy.state_of(world, program.learners),
        "tokens": tokens,
    }


@cache
def _plain(family: str) -> dict[str, Any]:
    (answer,) = run_ranks(plain.distil, 1, family, 0.0, PHASES, SIZE)
    return answer


@pytest.mark.parametrize("family", ["mdlm", pytest.param("duo", marks=pytest.mark.slow)])
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize(
    "stage", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3]
)
def test_engines_learn_a_latent_as_plain_torch_does(stage: int, size: int, family: str):
    wanted = _plain(family)
    _assert_agree(run_ranks(_distil, size, stage, family, 2), wanted)
    moved = wanted["state"][f"student/weight/{PROJECTION}"]
    shape = tuple(moved.shape)
    started = toy.weights_of("student").read(PROJECTION, shape, 0, moved.numel()).view(shape)
    assert (moved - started).abs().max() > 1e-3
    assert not [key for key in wanted["state"] if key.startswith("fake") and "latent" in key]


@pytest.mark.parametrize(
    ("stage", "precision"),
    [
        (3, "fp32"),
        *[pytest.param(stage, "fp32", marks=pytest.mark.slow) for stage in (1, 2)],
        pytest.param(3, "bf16", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_with_a_latent_is_the_uninterrupted_run_bit_for_bit(
    stage: int, precision: str, tmp_path: Path
):
    wanted = run_ranks(_distil, 2, stage, "mdlm", 1, precision, None, tmp_path)[0]
    folder = tmp_path / f"step-{MID_CYCLE}"
    resumed = run_ranks(_distil, 2, stage, "mdlm", 1, precision, folder)[0]
    assert resumed["losses"] == wanted["losses"][MID_CYCLE:]
    toy.assert_same(resumed["state"], wanted["state"], "resumed")
    assert resumed["tokens"] == wanted["tokens"]
    for kind in ("weight", "ema", "exp_avg", "exp_avg_sq"):
        assert wanted["state"][f"student/{kind}/{PROJECTION}"].abs().max() > 0


def _draw(world: World, folder: Path, stage: int) -> dict[int, list[int]]:
    """Samples of a saved student; no phase is left to run."""
    return _distil(world, stage, resume=folder)["tokens"]


@pytest.mark.slow
def test_samples_of_a_latent_do_not_depend_on_ranks_or_stage(tmp_path: Path):
    wanted = run_ranks(_save_last, 1, tmp_path)[0]
    assert len({tuple(row) for row in wanted.values()}) > 3
    for size, stage in ((2, 3), (2, 1)):
        for tokens in run_ranks(_draw, size, tmp_path / f"step-{PHASES}", stage):
            assert tokens == wanted


def _save_last(world: World, root: Path) -> dict[int, list[int]]:
    program = toy.start_program(world, toy.engine_json(1), latent=SIZE)
    save_checkpoint(root, PHASES, program.learners, {}, world=world, keep=9)
    return _draw(world, root / f"step-{PHASES}", 1)


SECTION = LatentSection(size=SIZE, scale=0.5, rate=2.0)


def _start(world: World, stage: int) -> dict[str, torch.Tensor] | None:
    """Whole weights of a student that has just been given a latent."""
    sizes = {"hidden": 16, "blocks": 1, "heads": 2, "cond": 8, "vocab_size": toy.VOCAB}
    card = NetworkCard(network={"kind": "dit", **sizes}, process={"name": "mdlm"}, length=6)
    student = with_latent(known_network(card), SECTION)
    role = start_trained(
        "student",
        student.make,
        WithProjection(toy.weights_of("student"), student, SECTION, seed=4),
        toy.engine_json(stage),
        toy.numerics_of(world),
        toy.optimizer_of("student"),
        ema_decay=0.5,
    )
    return dict(toy.gather_weights(role, is_first=world.is_first))


def test_a_new_projection_is_the_same_at_every_stage_and_on_any_number_of_ranks():
    wanted = run_ranks(_start, 1, 1)[0]
    assert wanted[PROJECTION].shape == (16, SIZE)
    assert wanted[PROJECTION].std() > 0.01
    for stage in (2, 3):
        got = run_ranks(_start, 2, stage)[0]
        assert got.keys() == wanted.keys()
        assert all(torch.equal(got[name], weight) for name, weight in wanted.items())
