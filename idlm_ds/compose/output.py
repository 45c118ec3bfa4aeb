"""The output folder of a run."""

import json
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import idlm_ds
from idlm_ds.errors import UserError
from idlm_ds.files import write_atomic
from idlm_ds.recipes.load import to_yaml
from idlm_ds.recipes.schema import DistillRecipe, PretrainRecipe

OWN_FILES = (
    "recipe.yaml", "run.json", "metrics.jsonl", "report.md", "report.json", "frontier.png",
    "checkpoints", "student", "model", "samples", "tensorboard", "wandb",
)  # fmt: skip
"""Everything a run writes; the only names ``--fresh`` deletes."""


def prepare_output(
    folder: Path, recipe: DistillRecipe | PretrainRecipe, *, world: int, resume: bool, fresh: bool
) -> None:
    """Make the folder and describe the run in it; call on the first rank only.

    Raises:
        UserError: It cannot be written, or holds a run and nothing says what to do with that.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
        if fresh:
            _clear(folder)
    except OSError as error:
        raise UserError(f"--output: cannot write {folder}: {error.strerror}") from error
    if (folder / "run.json").exists() and not resume:
        raise UserError(
            f"--output: {folder} already holds a run; continue it with --resume auto, start over "
            "with --fresh, or name another folder"
        )
    write_atomic(folder / "recipe.yaml", to_yaml(recipe).encode())
    write_atomic(folder / "run.json", (json.dumps(describe_run(world), indent=2) + "\n").encode())


def describe_run(world: int) -> dict[str, Any]:
    """Versions, commit and command of this process."""
    packages = ("torch", "deepspeed", "transformers", "tokenizers", "safetensors", "numpy")
    return {
        "idlm_ds": idlm_ds.__version__,
        "commit": git_commit(),
        "command": sys.argv,
        "world": world,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: _version(name) for name in packages},
    }


def git_commit() -> str | None:
    """Commit of the source tree, with ``+changes`` where it differs; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _clear(folder: Path) -> None:
    for name in OWN_FILES:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
