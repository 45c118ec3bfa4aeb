"""Who shares a copy of the frozen teacher changes its memory, no number and no checkpoint."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from idlm_ds.engine.checkpoint import load_checkpoint, save_checkpoint
from idlm_ds.engine.dist import World
from idlm_ds.engine.sharing import Sharding, groups_of
from idlm_ds.engine.zero import local_part
from idlm_ds.models.dit import DiT
from idlm_ds.train.step import train_step

from . import toy
from .harness import run_ranks

pytestmark = pytest.mark.dist

PHASES, SAVED = 6, 3
SIZE = sum(p.numel() for p in DiT(toy.NETWORK).parameters())


def _groups(sharding: Sharding, hosts: str) -> Any:
    """Ask with the hosts of all ranks, one letter each."""
    world = SimpleNamespace(size=len(hosts), gather=lambda own: list(hosts))
    with patch("socket.gethostname", return_value=hosts[0]):
        return groups_of(sharding, world)


def test_ranks_share_a_copy_with_all_with_those_of_their_host_or_with_none():
    assert _groups("world", "aabb") is None
    assert _groups("node", "aabb") == [[0, 1], [2, 3]]
    assert _groups("node", "abab") == [[0, 2], [1, 3]]
    assert _groups("node", "baa") == [[0], [1, 2]]
    assert _groups("node", "aaa") is None, "one host is the world"
    assert _groups("none", "aab") == [[0], [1], [2]]


def _distil(
    world: World,
    sharding: Sharding,
    per_host: int,
    family: str,
    root: Path | None = None,
    resume: Path | None = None,
    **zero: Any,
) -> dict[str, Any]:
    with toy.on_hosts(world, per_host):
        groups = groups_of(sharding, world)
    program = toy.start_program(world, toy.engine_json(3, **zero), family=family, groups=groups)
    teacher = program.roles["teacher"]
    held = sum(local_part(p).data.numel() for p in teacher.module.parameters())
    start = int(load_checkpoint(resume, program.learners)["step"]) if resume else 0
    results = []
    for step, batch in enumerate(toy.make_loader(world).batches(start, PHASES), start=start):
        result = train_step(program, step, batch, is_logged=True)
        results.append([result.loss, result.report.grad_norm])
        if root and step + 1 == SAVED:
            save_checkpoint(root, SAVED, program.learners, {}, world=world, keep=1)
    return {
        "held": held,
        "results": results,
        "state": toy.state_of(world, program.learners),
        "teacher": toy.gather_weights(teacher, is_first=True),
    }


def _assert_same(got: dict[str, Any], wanted: dict[str, Any], *, start: int = 0) -> None:
    """Bit for bit."""
    assert got["results"] == wanted["results"][start:]
    for kind in ("state", "teacher"):
        toy.assert_same(got[kind], wanted[kind], kind)


def _content(folder: Path) -> dict[str, Any]:
    """Everything in a checkpoint but the time it was written."""
    loop = json.loads((folder / "loop.json").read_text())
    assert loop.pop("time") > 0
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}
    return {**files, "loop": loop}


def test_a_teacher_that_each_rank_has_whole_gives_the_same_run_and_the_same_checkpoint(
    tmp_path: Path,
):
    shared = run_ranks(_distil, 2, "world", 1, "mdlm", tmp_path / "shared")
    whole = run_ranks(_distil, 2, "none", 1, "mdlm", tmp_path / "whole")
    for ours, theirs in zip(whole, shared, strict=True):
        assert ours["held"] == SIZE
        assert SIZE / 2 <= theirs["held"] < 0.55 * SIZE
        _assert_same(ours, theirs)
    saved = [tmp_path / name / f"step-{SAVED}" for name in ("shared", "whole")]
    assert _content(saved[0]) == _content(saved[1])
    # Hosts of one rank each are the same thing, and a run may change its mind when it goes on.
    for ours in run_ranks(_distil, 2, "node", 1, "mdlm", None, saved[0]):
        assert ours["held"] == SIZE
        _assert_same(ours, shared[0], start=SAVED)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mdlm", "duo"])
def test_a_teacher_sharded_inside_each_of_two_hosts_gives_the_same_run(family: str):
    shared = run_ranks(_distil, 4, "world", 2, family)
    for ours in run_ranks(_distil, 4, "node", 2, family):
        assert SIZE / 2 <= ours["held"] < 0.55 * SIZE
        assert SIZE / 4 <= shared[0]["held"] < 0.3 * SIZE
        _assert_same(ours, shared[0])


@pytest.mark.slow
def test_hosts_may_have_different_numbers_of_ranks():
    shared = run_ranks(_distil, 4, "world", 3, "duo")
    for rank, ours in enumerate(run_ranks(_distil, 4, "node", 3, "duo")):
        parts = 1 if rank == 3 else 3
        assert SIZE / parts <= ours["held"] < SIZE / parts * 1.1
        _assert_same(ours, shared[0])


def _offloaded(world: World, sharding: Sharding) -> dict[str, Any]:
    cpu = {"device": "cpu"}
    return _distil(world, sharding, 2, "mdlm", offload_param=cpu, offload_optimizer=cpu)


@pytest.mark.slow
def test_a_teacher_of_which_each_host_offloads_its_copy_gives_the_same_run():
    shared = run_ranks(_offloaded, 4, "world")
    for ours in run_ranks(_offloaded, 4, "node"):
        assert SIZE / 2 <= ours["held"] < 0.55 * SIZE
        _assert_same(ours, shared[0])
