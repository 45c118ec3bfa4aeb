"""One training step, whatever is trained: phase, times, loss, backward, total, update."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from torch import Tensor

from idlm_ds.data.loader import Batch, MicroBatch
from idlm_ds.engine.seeds import seed_dropout
from idlm_ds.engine.trio import Borrowed, Learner, StepReport, end_pass, one_learns
from idlm_ds.errors import NumericsError
from idlm_ds.noise import Noise, stratified_times
from idlm_ds.objectives.alternation import Phase
from idlm_ds.objectives.base import Method, StepInput, batch_loss
from idlm_ds.tensor_types import Time
from idlm_ds.train.lr import LearningRate

if TYPE_CHECKING:  # imports DeepSpeed, which a step does not need
    from idlm_ds.engine.dist import World


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

    world: "World"

    def times(self, method: Method, step: int) -> dict[str, Time]:
        """Draw the times of the global batch for each use; the same on every rank."""
        return {
            use: stratified_times(self.seed, use, step, count=self.global_batch, t_min=t_min).to(
                self.world.device
            )
            for use, t_min in method.smallest_times.items()
        }

    def noise(self, micro: MicroBatch) -> Noise:
        """Return the random streams of a micro-batch, one per sequence."""
        return Noise.of_samples(self.seed, "noise", samples=micro.samples, device=self.world.device)

    def reduce(self, nats: Tensor) -> Tensor:
        """Reduce the nats of a micro-batch to its share of the global batch's loss."""
        return batch_loss(
            nats,
            reduction=self.reduction,
            global_batch=self.global_batch,
            length=self.length,
            world=self.world.size,
        )


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

    loss: float | None
    """Nats per token (or per sequence, by the recipe's reduction), mean over the global batch.

    None where the phase was not logged and the method knew the gradient without the value.
    """

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
    method, settings, world = program.method, program.settings, program.settings.world
    # Phase: which network learns; dropout masks are a function of (seed, step, rank).
    phase = method.plan.phase(step)
    learner = program.learners[phase.learner]
    program.prepare(step)
    seed_dropout(settings.seed, step, world.rank)
    # Times: (global_batch,) for each use; every rank draws all of them and takes its rows.
    times = settings.times(method, step)
    parts: list[tuple[Tensor, Mapping[str, Tensor]]] = []
    is_value = True
    with one_learns(program.roles, phase.learner) as networks:
        for micro in batch.micro_batches:
            # Loss: nats (P,) at the positions of (micro_batch, L) that can cost something.
            own_times = {use: t[micro.rows] for use, t in times.items()}
            given = StepInput(micro.tokens, own_times, settings.noise(micro), step, is_logged)
            step_loss = method.loss(phase, networks, given)
            loss = settings.reduce(step_loss.nats)
            learner.backward(loss)
            end_pass(program.roles, phase.learner)
            is_value &= step_loss.is_value
            parts.append((loss.detach(), step_loss.metrics))
    # Total over micro-batches and ranks, checked before any weight moves.
    total, metrics = _totals(parts, world)
    if not math.isfinite(total):
        raise NumericsError(f"step {step}: the loss is {total}; no weight has been changed by it")
    # Update: weights, then their running mean.
    report = learner.step(program.rates[phase].at(learner.updates))
    return PhaseResult(total if is_value else None, metrics, report)


def _totals(
    parts: Sequence[tuple[Tensor, Mapping[str, Tensor]]], world: "World"
) -> tuple[float, dict[str, float]]:
    """Add loss and metrics over micro-batches and ranks: one all-reduce, one wait for the device.

    Collective: every rank must call.
    """
    names = list(parts[0][1])
    loss = torch.stack([loss for loss, _ in parts]).double().sum() / world.size
    sums = [torch.stack([metrics[name] for _, metrics in parts]).sum(0) for name in names]
    total, *values = world.sum(torch.cat([loss[None], *sums])).tolist()
    pairs = zip(names, values[::2], values[1::2], strict=True)
    return total, {name: amount / count if count else math.nan for name, amount, count in pairs}
