"""One training step, whatever is trained: phase, times, loss, backward, total, update."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, final

import torch
from torch import Tensor

from idlm_ds.data.loader import Batch, MicroBatch
from idlm_ds.engine.seeds import seed_dropout
from idlm_ds.engine.trio import Borrowed, Learner, StepReport, one_learns
from idlm_ds.errors import NumericsError
from idlm_ds.noise import Noise, stratified_times
from idlm_ds.objectives.alternation import Phase
from idlm_ds.objectives.base import Method, StepInput
from idlm_ds.objectives.reduce import batch_loss
from idlm_ds.tensor_types import Time
from idlm_ds.train.lr import LearningRate


class Ranks(Protocol):
    """What a step needs of the process group."""

    @property
    def rank(self) -> int:
        """This process, counted from 0."""
        ...

    @property
    def size(self) -> int:
        """Number of processes."""
        ...

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        ...

    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor over all ranks."""
        ...


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class StepSettings:
    """What all steps of a run share: seed, global batch, reduction and ranks."""

    seed: int
    global_batch: int
    """Sequences of an update, over all ranks."""

    length: int
    """Positions of a sequence."""

    reduction: Literal["mean", "sum"]
    """Over the positions of a sequence; over the batch it is always the mean."""

    world: Ranks


@final
@dataclass(frozen=True, slots=True)
class Program:
    """A method, the networks it trains, and how."""

    method: Method
    roles: Mapping[str, Borrowed]
    """All networks, by role."""

    rates: Mapping[Phase, LearningRate]
    """Learning rate of the network that learns in each phase."""

    settings: StepSettings

    prepare: Callable[[int], None] = lambda step: None
    """Called with the step before it runs; renews the teacher where training goes in rounds."""

    @property
    def learners(self) -> Mapping[str, Any]:
        """The networks that learn, by role."""
        return {name: role for name, role in self.roles.items() if isinstance(role, Learner)}


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What came of one phase, the same on every rank."""

    loss: float
    """Nats per token (or per sequence, by the recipe's reduction), mean over the global batch."""

    metrics: Mapping[str, float]
    """Figures beside the loss, where the phase was logged."""

    report: StepReport


def train_step(
    program: Program, step: int, batch: Batch, *, is_logged: bool = False
) -> PhaseResult:
    """Run one phase: the active network learns from the global batch, the others only transmit.

    Collective: every rank must call, with its part of the batch.

    Args:
        program: What is trained, and how.
        step: Index of the phase, counted from 0.
        batch: This rank's micro-batches.
        is_logged: Whether the method's metrics are computed.

    Raises:
        NumericsError: The loss is not finite, on any rank; no weight has moved.
    """
    method, settings = program.method, program.settings
    # Phase: which network learns; dropout masks are a function of (seed, step, rank).
    phase = method.plan.phase(step)
    learner = program.learners[phase.learner]
    program.prepare(step)
    seed_dropout(settings.seed, step, settings.world.rank)
    # Times: (global_batch,) for each use; every rank draws all of them and takes its rows.
    times = _times(method, settings, step)
    losses: list[Tensor] = []
    metrics: list[Mapping[str, Tensor]] = []
    with one_learns(program.roles, phase.learner) as networks:
        for micro in batch.micro_batches:
            # Loss: nats (P,) at the positions of (micro_batch, L) that can cost something.
            given = _step_input(micro, times, settings, step, is_logged=is_logged)
            step_loss = method.loss(phase, networks, given)
            loss = _reduced(step_loss.nats, settings)
            # Backward: from the loss, or in two halves that meet at the cut; see ``IDLM.loss``.
            if step_loss.cut is None:
                learner.backward(loss)
            else:
                (cotangent,) = torch.autograd.grad(loss, step_loss.cut.leaf)
                learner.backward_from(step_loss.cut.output, cotangent)
            losses.append(loss.detach())
            metrics.append(step_loss.metrics)
    # Total over micro-batches and ranks, checked before any weight moves.
    total, figures = _totals(losses, metrics, settings)
    if not math.isfinite(total):
        raise NumericsError(f"step {step}: the loss is {total}; no weight has been changed by it")
    # Update: weights, then their running mean.
    report = learner.step(program.rates[phase].at(learner.updates))
    return PhaseResult(total, figures, report)


def _times(method: Method, settings: StepSettings, step: int) -> dict[str, Time]:
    return {
        use: stratified_times(
            settings.seed, use, step, count=settings.global_batch, t_min=t_min
        ).to(settings.world.device)
        for use, t_min in method.smallest_times.items()
    }


def _step_input(
    micro: MicroBatch,
    times: Mapping[str, Time],
    settings: StepSettings,
    step: int,
    *,
    is_logged: bool,
) -> StepInput:
    device = settings.world.device
    return StepInput(
        tokens=micro.tokens,
        times={use: t[micro.rows] for use, t in times.items()},
        noise=Noise.of_samples(settings.seed, "noise", samples=micro.samples, device=device),
        step=step,
        is_logged=is_logged,
    )


def _reduced(nats: Tensor, settings: StepSettings) -> Tensor:
    return batch_loss(
        nats,
        reduction=settings.reduction,
        global_batch=settings.global_batch,
        length=settings.length,
        world=settings.world.size,
    )


def _totals(
    losses: Sequence[Tensor], metrics: Sequence[Mapping[str, Tensor]], settings: StepSettings
) -> tuple[float, dict[str, float]]:
    """Add loss and metrics over micro-batches and ranks: one all-reduce, one wait for the device.

    Collective: every rank must call.
    """
    names = list(metrics[0])
    loss = torch.stack(list(losses)).double().sum() / settings.world.size
    sums = [torch.stack([part[name] for part in metrics]).sum(0) for name in names]
    total, *values = settings.world.sum(torch.cat([loss[None], *sums])).tolist()
    pairs = zip(names, values[::2], values[1::2], strict=True)
    return total, {name: amount / count if count else math.nan for name, amount, count in pairs}
