"""The loop around the phases."""

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch

from idlm_ds.data.loader import Loader
from idlm_ds.train.flops import Meter
from idlm_ds.train.step import Program, train_step


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseRecord:
    """One line of ``metrics.jsonl``."""

    step: int
    """Phases are counted from 0."""

    phase: str
    update: int
    """Updates of this phase's network so far, this one included."""

    loss: float | None
    """For the fake its diffusion loss, for the student the gap; nats. None where it is unknown:
    the gap costs more than its gradient, and is computed in logged phases only."""

    grad_norm: float
    lr: float
    was_applied: bool
    tokens_per_s: float
    mfu: float | None
    """Share of the devices' peak that the operations a phase needs take; see ``train/flops.py``."""

    loader_wait_s: float
    phase_s: float
    memory_gb: float
    """Most the process has held: GPU memory where there is one, else resident memory."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """What the method knows beside its loss, where the phase was logged."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, metrics among them."""
        fields = asdict(self)
        return fields | fields.pop("metrics")


CLOCK_FIELDS = ("tokens_per_s", "mfu", "loader_wait_s", "phase_s", "memory_gb")
"""Fields of a record that differ between two runs of the same recipe; no other does."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A hook's wish that the run end here, in order."""

    reason: str
    """In a few words, for the user."""

    is_preemption: bool = False
    """Whether a signal asked for it, so that whoever sent it may start the run again."""


class Hook(Protocol):
    """Something that happens beside training."""

    def after_phase(self, record: PhaseRecord) -> Stop | None:
        """Act on a finished phase.

        Collective: called on every rank after each phase. A hook that ends the run must say so
        on every rank.
        """

    def close(self) -> None:
        """Finish; called once, also when training fails."""


def run_phases(
    program: Program,
    loader: Loader,
    hooks: Sequence[Hook],
    *,
    start: int,
    stop: int,
    log_every: int = 1,
    meter: Meter | None = None,
) -> Stop | None:
    """Run phases ``start`` to ``stop``, or up to where a hook ends the run.

    Collective: every rank must call.

    Args:
        program: What is trained, and how.
        loader: The data.
        hooks: All are called after each phase, in this order, also when one of them says stop.
        start: Phases done before.
        stop: Phases in all.
        log_every: Phases between those whose metrics are computed.
        meter: Tells the share of the devices' peak that is put to use, where it is known.

    Returns:
        The first hook's reason to end the run early, None where it ran to its end.
    """
    plan, tokens = program.method.plan, loader.global_batch * loader.windows.length
    try:
        for step, batch in enumerate(loader.batches(start, stop), start=start):
            began = time.perf_counter()
            # Logged is the last cycle of every ``log_every`` phases: each kind of phase once.
            is_logged = (step + plan.cycle) // log_every > step // log_every
            result = train_step(program, step, batch, is_logged=is_logged)
            seconds = time.perf_counter() - began
            phase = plan.phase(step)
            record = PhaseRecord(
                step=step,
                phase=phase.value,
                update=plan.updates(phase, step + 1),
                loss=result.loss,
                grad_norm=result.report.grad_norm,
                lr=result.report.lr,
                was_applied=result.report.was_applied,
                tokens_per_s=(speed := tokens / (seconds + batch.wait_s)),
                mfu=None if meter is None else meter.mfu(phase, speed),
                loader_wait_s=batch.wait_s,
                phase_s=seconds,
                memory_gb=_memory_gb(loader.device),
                metrics=result.metrics,
            )
            wishes = [hook.after_phase(record) for hook in hooks]
            if ending := next((wish for wish in wishes if wish is not None), None):
                return ending
        return None
    finally:
        # All of them, even if one fails; what comes last waits for a checkpoint being written.
        with ExitStack() as closing:
            for hook in hooks:
                closing.callback(hook.close)


def _memory_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
