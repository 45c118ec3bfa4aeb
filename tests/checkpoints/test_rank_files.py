"""Whole tensors out of what ranks wrote."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from idlm_ds.checkpoints.rank_files import RankFiles
from idlm_ds.engine.checkpoint import save_checkpoint
from idlm_ds.engine.dist import World
from idlm_ds.errors import UserError
from idlm_ds.train.step import train_step
from tests.distributed import toy
from tests.distributed.harness import run_ranks

PHASES = 3
"""Two of the fake and one of the student."""


def _train(world: World, root: Path, stage: int) -> dict[str, Any]:
    program = toy.start_program(world, toy.engine_json(stage))
    for step, batch in enumerate(toy.make_loader(world).batches(0, PHASES)):
        train_step(program, step, batch)
    save_checkpoint(root, PHASES, program.learners, {}, world=world, keep=1)
    return toy.state_of(world, program.learners)


@pytest.mark.dist
@pytest.mark.parametrize(("stage", "ranks"), [(3, 2), (1, 2)])
def test_running_means_of_a_run_are_read_whole(stage: int, ranks: int, tmp_path: Path):
    state = run_ranks(_train, ranks, tmp_path, stage)[0]
    for kind in ("ema", "weight"):
        wanted = {
            key.removeprefix(f"student/{kind}/"): tensor
            for key, tensor in state.items()
            if key.startswith(f"student/{kind}/")
        }
        files = RankFiles(tmp_path / f"step-{PHASES}" / "student", kind)
        assert files.names() == wanted.keys()
        for name, tensor in wanted.items():
            shape, flat = tuple(tensor.shape), tensor.flatten()
            assert files.shape(name) == shape
            assert files.dtype(name) == torch.float32
            for start, stop in ((0, len(flat)), (len(flat) // 2 - 1, len(flat) // 2 + 1), (0, 1)):
                assert torch.equal(files.read(name, shape, start, stop), flat[start:stop])
    assert not torch.equal(state["student/ema/blocks.0.mlp.0.weight"],
                           state["student/weight/blocks.0.mlp.0.weight"])  # fmt: skip


def write(folder: Path, rank: int, start: int, stop: int, kind: str = "ema") -> None:
    places = {"w": {"start": start, "shape": [2, 3]}}
    save_file(
        {f"{kind}:w": torch.arange(start, stop, dtype=torch.float32)},
        folder / f"rank-{rank:05d}.safetensors",
        metadata={"fragments": json.dumps(places)},
    )


def test_order_of_ranks_need_not_be_that_of_elements(tmp_path: Path):
    write(tmp_path, 0, 4, 6)
    write(tmp_path, 1, 0, 4)
    assert RankFiles(tmp_path).read("w", (2, 3), 0, 6).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("runs", [[(0, 4)], [(0, 4), (5, 6)], [(0, 4), (3, 6)], [(1, 6)]])
def test_an_element_that_is_missing_or_there_twice_is_an_error(tmp_path: Path, runs):
    for rank, (start, stop) in enumerate(runs):
        write(tmp_path, rank, start, stop)
    with pytest.raises(UserError, match="ema of w is not there once and whole"):
        RankFiles(tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"no rank-\*\.safetensors there"):
        RankFiles(tmp_path)
    write(tmp_path, 0, 0, 6, "weight")
    with pytest.raises(UserError, match="holds no ema of a training run") as refused:
        RankFiles(tmp_path)
    assert "\n" not in str(refused.value)
    (tmp_path / "rank-00000.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(UserError, match="holds no ema of a training run"):
        RankFiles(tmp_path)
