"""Ranks take turns, and start in one folder."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from idlm_ds.engine import turns
from idlm_ds.engine.dist import World
from idlm_ds.errors import UserError
from idlm_ds.runs import shared_folder
from idlm_ds.runs.shared_folder import require_shared

from .harness import run_ranks

pytestmark = pytest.mark.dist


def _turns(world: World, folder: str) -> dict[str, object]:
    seen = []
    for name in ("a", "b"):
        with turns.host_first(world) as is_leader:
            seen.append(sorted(os.listdir(folder)))
            if is_leader:
                (Path(folder) / name).touch()
        world.barrier()
    turns.CHUNK = 7
    calls = []

    def make() -> tuple[np.ndarray, ...]:
        calls.append(world.rank)
        return np.arange(20, dtype=np.int32), np.full((2, 3), 4, dtype=np.int32), np.empty(0, "i4")

    arrays = turns.first_makes(world, make)
    return {
        "seen": seen,
        "calls": calls,
        "dtypes": [str(a.dtype) for a in arrays],
        "arrays": [torch.from_numpy(a) for a in arrays],
    }


def test_the_first_rank_of_a_host_goes_first_and_its_arrays_reach_the_others(tmp_path):
    first, second = run_ranks(_turns, 2, str(tmp_path))
    assert first["seen"] == [[], ["a"]]
    assert second["seen"] == [["a"], ["a", "b"]]
    assert (first["calls"], second["calls"]) == ([0], [])
    for result in (first, second):
        assert result["dtypes"] == ["int32"] * 3
        assert result["arrays"][0].tolist() == list(range(20))
        assert result["arrays"][1].tolist() == [[4] * 3] * 2
        assert result["arrays"][2].shape == (0,)


def _open(world: World, folders: list[str]) -> str:
    shared_folder.SEEN_WITHIN_S = 0.3
    try:
        require_shared(Path(folders[world.rank]), world)
    except UserError as error:
        return str(error)
    return ""


def test_all_ranks_share_the_folder_of_a_run(tmp_path):
    assert run_ranks(_open, 2, [f"{tmp_path}/runs/a"] * 2) == ["", ""]
    assert list((tmp_path / "runs/a").iterdir()) == []
    # A folder of the same name on each host is still not one folder.
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    for hidden in (there, tmp_path / "nowhere"):
        first, second = run_ranks(_open, 2, [str(here), str(hidden)])
        assert first == second
        assert first.startswith("--output: rank 1 on ")
        assert f"does not see {hidden} of rank 0" in first
        assert not here.exists()
    (tmp_path / "file").touch()
    first, second = run_ranks(_open, 2, [f"{tmp_path}/file/a", str(here)])
    assert first == second == f"--output: cannot write {tmp_path}/file/a: Not a directory"
