"""The output folder of a run."""

import json
import shutil
import time
from pathlib import Path

from idlm_ds.errors import UserError
from idlm_ds.files import write_atomic
from idlm_ds.provenance import describe_run
from idlm_ds.recipes.load import to_yaml
from idlm_ds.recipes.schema import DistillRecipe, PretrainRecipe
from idlm_ds.runs.requeue import NOTE
from idlm_ds.startup import batch_job

FILES = (
    *("recipe.yaml", "run.json", "metrics.jsonl", NOTE),
    *("report.md", "report.json", "frontier.png"),
)
FOLDERS = ("checkpoints", "student", "model", "samples", "evaluation", "tensorboard", "wandb")
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
    (folder / NOTE).unlink(missing_ok=True)
    write_atomic(folder / "recipe.yaml", to_yaml(recipe).encode())
    began = job_began(folder) or time.time()
    described = describe_run(world) | {"job": batch_job(), "job_began": began}
    write_atomic(folder / "run.json", (json.dumps(described, indent=2) + "\n").encode())


def job_began(folder: Path) -> float | None:
    """Return when this process's batch job first started the run in a folder; None if it did not.

    In seconds since 1970. The job has to be the one that last started it.
    """
    try:
        described = json.loads((folder / "run.json").read_text("utf-8"))
        is_own = described["job"] is not None and described["job"] == batch_job()
        return float(described["job_began"]) if is_own else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _clear(folder: Path) -> None:
    for name in (*FILES, *FOLDERS):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
