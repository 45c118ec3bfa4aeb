"""Provenance of results: code, versions and machine."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import idlm_ds


def describe_run(world: int) -> dict[str, Any]:
    """Collect versions, commit and command of this process, for ``run.json``."""
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
    """Return the commit of the source tree, with ``+changes`` if modified; None without git."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True
        )
        return result.stdout.strip() if result.returncode == 0 else ""

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
    """Collect versions, commit, device and number of ranks, for rows of an evaluation."""
    return {
        "idlm_ds": idlm_ds.__version__,
        "commit": git_commit(),
        "torch": _version("torch"),
        "python": platform.python_version(),
        "device": device,
        "ranks": ranks,
    }
