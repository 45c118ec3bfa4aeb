"""The import contracts of pyproject.toml break where they should."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import idlm_ds

ROOT = Path(idlm_ds.__file__).parents[1]
LINT = Path(sys.executable).with_name("lint-imports")


def linted(tree: Path) -> tuple[int, str]:
    done = subprocess.run(
        [LINT, "--no-cache"],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package's sources and of the contracts."""
    leave = shutil.ignore_patterns("assets", "__pycache__")
    shutil.copytree(ROOT / "idlm_ds", tmp_path / "idlm_ds", ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("place", "imported", "broken"),
    [
        ("engine/ema.py", "metrics.entropy", "Engines take networks and losses as they come"),
        ("engine/ema.py", "models.dit", "Engines take networks and losses as they come"),
        ("engine/ema.py", "recipes.load", "Only what builds, evaluates or runs reads recipes"),
        ("engine/json_check.py", "engine.zero", "DeepSpeed files are checked without torch"),
        ("metrics/entropy.py", "checkpoints.tensors", "metrics no files of models"),
        ("data/loader.py", "metrics.entropy", "Data and checkpoints compute no metric"),
        ("models/dit.py", "processes.base", "Models know nothing of diffusion"),
        ("processes/mdlm.py", "models.dit", "Models know nothing of diffusion"),
        ("processes/mdlm.py", "samplers.grid", "Imports point down"),
        ("train/lr.py", "evaluation.row", "Imports point down"),
        ("build/locate.py", "runs.session", "Imports point down"),
        ("noise.py", "train.loop", "Imports point down"),
        ("kernels/rows.py", "noise", "Imports point down"),
        ("kernels/launch.py", "engine.dist", "Math never sees a process group"),
        ("laboratory/chain.py", "engine.dist", "Math never sees a process group"),
        ("objectives/idlm.py", "laboratory.chain", "Imports point down"),
    ],
)
def test_a_planted_import_breaks_a_contract(place: str, imported: str, broken: str, tree: Path):
    path = tree / "idlm_ds" / place
    path.write_text(f"import idlm_ds.{imported}\n" + path.read_text())
    code, output = linted(tree)
    assert code == 1, output
    (line,) = [x for x in output.splitlines() if broken in x and x.rstrip().endswith("BROKEN")]


def test_a_folder_that_no_layer_names_breaks_the_build(tree: Path):
    (tree / "idlm_ds" / "attic").mkdir()
    (tree / "idlm_ds" / "attic" / "__init__.py").write_text("")
    code, output = linted(tree)
    assert code == 1, output
    assert "idlm_ds.attic" in output


def test_the_tree_as_it_is_keeps_all_of_them(tree: Path):
    code, output = linted(tree)
    assert code == 0, output
