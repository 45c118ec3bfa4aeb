"""What one phase of the baselines does: a student that learns from its former self."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from idlm_ds.data.loader import Batch
from idlm_ds.engine.handover import Handover
from idlm_ds.engine.role import RoleEngine
from idlm_ds.engine.seeds import seed_dropout
from idlm_ds.objectives.alternation import Phase, Single
from idlm_ds.objectives.self_distillation import Rounds, SelfDistillation
from idlm_ds.train.lr import LearningRate
from idlm_ds.train.program import Draws, PhaseResult


@final
@dataclass(kw_only=True, slots=True)
class SelfDistillProgram:
    """Rounds of one learning network and one frozen one, which takes over between rounds."""

    teacher: RoleEngine
    student: RoleEngine
    objective: SelfDistillation
    rounds: Rounds
    rate: LearningRate
    draws: Draws
    handover: Handover
    plan: Single = Single(Phase.STUDENT)
    main_phase: Phase = Phase.STUDENT
    _round: int = field(default=0, init=False)
    """The round whose teacher this process holds."""

    @property
    def loss_names(self) -> Mapping[str, str]:
        """See ``Program``."""
        return {"student": "divergence"}

    @property
    def roles(self) -> Mapping[str, RoleEngine]:
        """See ``Program``."""
        return {"student": self.student}

    def take(self, step: int, batch: Batch) -> PhaseResult:
        """See ``Program``."""
        self._prepare_teacher(step)
        seed_dropout(self.draws.seed, step, self.draws.world.rank)
        times, dt = self.draws.times("t", step), self.rounds.length(step)
        losses: list[Tensor] = []
        with self.student.learning() as student:
            for micro in batch.micro_batches:
                nats = self.objective.loss(
                    student,
                    self.teacher.module,
                    micro.tokens,
                    times[micro.rows],
                    dt,
                    noise=self.draws.noise(micro),
                )
                loss = self.draws.reduce(nats)
                self.student.backward(loss)
                losses.append(loss.detach())
        self.teacher.release()
        self.student.release()
        total = self.draws.total(losses, step)
        return PhaseResult(total, self.student.step(self.rate.at(self.student.updates)))

    def _prepare_teacher(self, step: int) -> None:
        """Bring the teacher to the round of ``step``, also in a run that was just resumed."""
        index = self.rounds.index(step)
        if index == self._round:
            return
        if self.rounds.is_first_of_round(step):
            self.handover.take()
        else:
            self.handover.renew()
        self._round = index
