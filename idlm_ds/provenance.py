"""Which code, versions and machine made a result."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import idlm_ds


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
    root = Path(__file__).resolve().parents[1]

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


def describe_machine(device: str, ranks: int) -> dict[str, Any]:
    """Versions, commit, device and number of ranks, for the rows of an evaluation."""
    return {
        "idlm_ds": idlm_ds.__version__,
        "commit": git_commit(),
        "torch": _version("torch"),
        "python": platform.python_version(),
        "device": device,
        "ranks": ranks,
    }
