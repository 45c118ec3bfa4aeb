"""Sinks of a run's metrics: a file always, TensorBoard and W&B by recipe."""

import json
from pathlib import Path
from typing import Any, Literal

from idlm_ds.files import write_atomic
from idlm_ds.train.loop import PhaseRecord


class MetricsFile:
    """The file ``metrics.jsonl``, to which each phase appends one JSON object."""

    def __init__(self, path: Path, *, start: int) -> None:
        """Open the file at phase ``start``.

        Lines of later phases, which a killed run wrote after its last checkpoint, and a torn last
        line are dropped, so that every phase is there once.
        """
        kept = [line for line in _lines(path) if json.loads(line)["step"] < start]
        write_atomic(path, "".join(f"{line}\n" for line in kept).encode())
        self._file = path.open("a")

    def after_phase(self, record: PhaseRecord) -> None:
        """See ``Hook``."""
        self.write(record.to_json())

    def write(self, fields: dict[str, Any]) -> None:
        """Append one object."""
        self._file.write(json.dumps(fields) + "\n")
        self._file.flush()

    def close(self) -> None:
        """See ``Hook``."""
        self._file.close()


def _lines(path: Path) -> list[str]:
    """Read the whole lines of the file; the last one may have been cut by a kill."""
    if not path.exists():
        return []
    text = path.read_text("utf-8")
    return text[: text.rfind("\n") + 1].splitlines()


class TensorBoard:
    """Scalars by phase."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def after_phase(self, record: PhaseRecord) -> None:
        """See ``Hook``."""
        fields = record.to_json()
        for name in ("loss", "grad_norm", "lr", "tokens_per_s"):
            if fields[name] is not None:
                self._writer.add_scalar(
                    f"{record.phase}/{name}", fields[name], global_step=record.step
                )

    def close(self) -> None:
        """See ``Hook``."""
        self._writer.close()


class WandB:
    """Weights & Biases, online or as an offline folder that needs no account."""

    def __init__(
        self,
        folder: Path,
        *,
        project: str,
        mode: Literal["online", "offline"],
        recipe: dict[str, Any],
    ) -> None:
        import wandb

        # Command lines and source files may hold secrets; the recipe says what is needed.
        settings = wandb.Settings(x_disable_meta=True, save_code=False, silent=True)
        self._run = wandb.init(
            project=project, dir=str(folder), mode=mode, config=recipe, settings=settings
        )

    def after_phase(self, record: PhaseRecord) -> None:
        """See ``Hook``."""
        values = {k: v for k, v in record.to_json().items() if k != "phase" and v is not None}
        fields = {f"{record.phase}/{k}": v for k, v in values.items()}
        self._run.log(fields, step=record.step)

    def close(self) -> None:
        """See ``Hook``."""
        self._run.finish()
