"""What one phase does: the distillation step and the pretraining step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, final

import torch
from torch import Tensor

from idlm_ds.data.loader import Batch, MicroBatch
from idlm_ds.engine.dist import World
from idlm_ds.engine.role import RoleEngine, StepReport
from idlm_ds.engine.seeds import seed_dropout
from idlm_ds.engine.trio import EngineTrio, Roles
from idlm_ds.errors import NumericsError
from idlm_ds.noise import Noise, stratified_times
from idlm_ds.objectives.alternation import Alternation, Phase, Single
from idlm_ds.objectives.idlm import IDLM
from idlm_ds.objectives.pretrain import PretrainObjective
from idlm_ds.objectives.reduce import batch_loss
from idlm_ds.processes.base import Noisy
from idlm_ds.tensor_types import Scalar, Time
from idlm_ds.train.lr import LearningRate


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What came of one phase, the same on every rank."""

    loss: float
    """Nats per token (or per sequence, by the recipe's reduction), mean over the global batch."""

    report: StepReport


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """Where the randomness and the arithmetic of a run's batches come from."""

    seed: int
    t_min: float
    global_batch: int
    length: int
    reduction: Literal["mean", "sum"]
    world: World

    def times(self, use: str, step: int, *, t_min: float | None = None) -> Time:
        """Stratified times of a phase's whole global batch, from the run's t_min or another."""
        lowest = self.t_min if t_min is None else t_min
        times = stratified_times(self.seed, use, step, count=self.global_batch, t_min=lowest)
        return times.to(self.world.device)

    def noise(self, micro: MicroBatch) -> Noise:
        """The streams of the sequences of a micro-batch."""
        return Noise.of_samples(self.seed, "noise", samples=micro.samples, device=self.world.device)

    def reduce(self, nats: Tensor) -> Scalar:
        """See ``batch_loss``."""
        return batch_loss(
            nats,
            reduction=self.reduction,
            global_batch=self.global_batch,
            length=self.length,
            world=self.world.size,
        )

    def total(self, losses: list[Tensor], step: int) -> float:
        """Collective: the loss of the global batch.

        Raises:
            NumericsError: It is not finite, on any rank; every rank raises.
        """
        local = torch.stack(losses).double().sum() / self.world.size
        loss = self.world.sum(local).item()
        if not math.isfinite(loss):
            raise NumericsError(
                f"step {step}: the loss is {loss}; no weight has been changed by it"
            )
        return loss


class Program(Protocol):
    """A kind of training, as the loop sees it."""

    @property
    def plan(self) -> Alternation | Single:
        """Which phase each step is."""
        ...

    @property
    def main_phase(self) -> Phase:
        """The phase whose updates measure the length of the run."""
        ...

    @property
    def loss_names(self) -> Mapping[str, str]:
        """What the loss of each phase is called on the console."""
        ...

    @property
    def roles(self) -> Mapping[str, RoleEngine]:
        """The networks that learn, by name."""
        ...

    def take(self, step: int, batch: Batch) -> PhaseResult:
        """Run phase ``step`` on its batch."""
        ...


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class DistillProgram:
    """The alternating objective on three engines."""

    trio: EngineTrio
    objective: IDLM
    plan: Alternation
    rates: Mapping[Phase, LearningRate]
    draws: Draws
    input_t_min: float
    """Smallest time of the text the student is given; ``draws.t_min`` is that of its samples."""

    main_phase: Phase = Phase.STUDENT

    @property
    def teacher(self) -> RoleEngine:
        """What is distilled."""
        return self.trio.teacher

    @property
    def student(self) -> RoleEngine:
        """What comes of it."""
        return self.trio.student

    @property
    def loss_names(self) -> Mapping[str, str]:
        """See ``Program``."""
        return {"fake": "fake loss", "student": "gap"}

    @property
    def roles(self) -> Mapping[str, RoleEngine]:
        """See ``Program``."""
        return {"fake": self.trio.fake, "student": self.trio.student}

    def take(self, step: int, batch: Batch) -> PhaseResult:
        """See ``Program``."""
        phase = self.plan.phase(step)
        seed_dropout(self.draws.seed, step, self.draws.world.rank)
        t_input = self.draws.times("t-input", step, t_min=self.input_t_min)
        t = self.draws.times("t", step)
        losses = []
        with self.trio.learning(phase) as net:
            for micro in batch.micro_batches:
                noise = self.draws.noise(micro)
                given = self.objective.student_input(micro.tokens, t_input[micro.rows], noise=noise)
                passing = self._fake_pass if phase is Phase.FAKE else self._student_pass
                losses.append(passing(net, given, t[micro.rows], noise))
        loss = self.draws.total(losses, step)
        rate = self.rates[phase].at(self.trio.active(phase).updates)
        return PhaseResult(loss, self.trio.step(phase, lr=rate))

    def _fake_pass(self, net: Roles, given: Noisy, t: Time, noise: Noise) -> Tensor:
        with torch.no_grad():
            raw = self.objective.generate(net.student, given)
            x_0 = self.objective.process.relax(raw, given)
        nats = self.objective.fake_loss(net.fake, x_0, t, noise=noise)
        loss = self.draws.reduce(nats)
        self.trio.backward(Phase.FAKE, loss)
        return loss.detach()

    def _student_pass(self, net: Roles, given: Noisy, t: Time, noise: Noise) -> Tensor:
        raw = self.objective.generate(net.student, given)
        leaf = raw.detach().requires_grad_()
        x_0 = self.objective.process.relax(leaf, given)
        loss = self.draws.reduce(self.objective.gap(net.teacher, net.fake, x_0, t, noise=noise))
        (cotangent,) = torch.autograd.grad(loss, leaf)
        self.trio.backward_from(Phase.STUDENT, raw, cotangent)
        return loss.detach()


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainProgram:
    """One network on data."""

    model: RoleEngine
    objective: PretrainObjective
    rate: LearningRate
    draws: Draws
    plan: Single = Single()
    main_phase: Phase = Phase.PRETRAIN

    @property
    def loss_names(self) -> Mapping[str, str]:
        """See ``Program``."""
        return {"pretrain": "loss"}

    @property
    def roles(self) -> Mapping[str, RoleEngine]:
        """See ``Program``."""
        return {"model": self.model}

    def take(self, step: int, batch: Batch) -> PhaseResult:
        """See ``Program``."""
        seed_dropout(self.draws.seed, step, self.draws.world.rank)
        times = self.draws.times("t", step)
        losses = []
        with self.model.learning() as forward:
            for micro in batch.micro_batches:
                noise = self.draws.noise(micro)
                nats = self.objective.loss(forward, micro.tokens, times[micro.rows], noise=noise)
                loss = self.draws.reduce(nats)
                self.model.backward(loss)
                losses.append(loss.detach())
        total = self.draws.total(losses, step)
        return PhaseResult(total, self.model.step(self.rate.at(self.model.updates)))
