"""The loop around the phases."""

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from idlm_ds.data.loader import Loader
from idlm_ds.train.program import Program


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseRecord:
    """One line of ``metrics.jsonl``."""

    step: int
    """Phases are counted from 0."""

    phase: str
    update: int
    """Updates of this phase's network so far, this one included."""

    loss: float
    """For the fake its diffusion loss, for the student the gap; nats."""

    grad_norm: float
    lr: float
    was_applied: bool
    tokens_per_s: float
    loader_wait_s: float
    phase_s: float
    memory_gb: float
    """Most the process has held: GPU memory where there is one, else resident memory."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


CLOCK_FIELDS = ("tokens_per_s", "loader_wait_s", "phase_s", "memory_gb")
"""Fields of a record that differ between two runs of the same recipe; no other does."""


class Hook(Protocol):
    """Something that happens beside training."""

    def after_phase(self, record: PhaseRecord) -> None:
        """Called on every rank after each phase."""
        ...

    def close(self) -> None:
        """Called once, also when training fails."""
        ...


def run_phases(
    program: Program, loader: Loader, hooks: Sequence[Hook], *, start: int, stop: int
) -> None:
    """Run phases ``start`` to ``stop``.

    Collective: every rank must call.
    """
    try:
        for step, batch in enumerate(loader.batches(start, stop), start=start):
            began = time.perf_counter()
            result = program.take(step, batch)
            seconds = time.perf_counter() - began
            phase = program.plan.phase(step)
            tokens = loader.global_batch * loader.windows.length
            record = PhaseRecord(
                step=step,
                phase=phase.value,
                update=program.plan.updates(phase, step + 1),
                loss=result.loss,
                grad_norm=result.report.grad_norm,
                lr=result.report.lr,
                was_applied=result.report.was_applied,
                tokens_per_s=tokens / (seconds + batch.wait_s),
                loader_wait_s=batch.wait_s,
                phase_s=seconds,
                memory_gb=_memory_gb(loader.device),
            )
            for hook in hooks:
                hook.after_phase(record)
    finally:
        for hook in hooks:
            hook.close()


def _memory_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
