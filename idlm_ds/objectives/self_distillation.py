"""Self-distillation in rounds: a student learns to do one step where its teacher does two.

Baselines without a fake and without student samples. At the start of each round the teacher takes
over the student's weights, and the length of its steps doubles.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from idlm_ds.kernels.projection import block_rows, blocks
from idlm_ds.noise import Noise
from idlm_ds.objectives.alternation import Phase, Single
from idlm_ds.objectives.base import Method, StepInput, StepLoss
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Denoiser, Noisy, Use, at
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.processes.uniform import Uniform
from idlm_ds.tensor_types import LogProbs, PerPosition, Positions, Time, TokenIds

EARLIEST = 1e-5
"""Smallest time of a teacher's chain; noise that remains there is predicted, not drawn."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds:
    """Schedule of rounds: when the teacher is renewed, and the length of its steps."""

    updates: int
    """Updates of the student in the whole run."""

    count: int
    """Number of rounds they are divided into."""

    grid: int
    """The teacher's steps in round 0 have length ``1 / grid``."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= self.updates:
            raise ValueError(f"count must be in [1, {self.updates}], got {self.count}")
        if self.grid < 2**self.count:
            raise ValueError(f"grid must be at least {2**self.count}, got {self.grid}")

    def index(self, step: int) -> int:
        """Return the round of update ``step``, counted from 0."""
        return step * self.count // self.updates

    def is_first_of_round(self, step: int) -> bool:
        """Tell whether a round begins with update ``step``."""
        return step == 0 or self.index(step) != self.index(step - 1)

    def length(self, step: int) -> float:
        """Return the teacher's step in diffusion time, which doubles from round to round."""
        return 2.0 ** self.index(step) / self.grid


class SelfDistillation(Method):
    """Divergence between the student's prediction and its teacher's after smaller steps."""

    plan: Single
    rounds: Rounds
    t_min: float
    loss_names: ClassVar[Mapping[Phase, str]] = {Phase.STUDENT: "divergence"}

    @property
    def smallest_times(self) -> Mapping[str, float]:
        """See base class."""
        return {"t": self.t_min}

    def loss(self, phase: Phase, networks: Mapping[str, Denoiser], batch: StepInput) -> StepLoss:
        """See base class."""
        del phase
        dt = self.rounds.length(batch.step)
        student, teacher, t = networks["student"], networks["teacher"], batch.times["t"]
        return StepLoss(self.divergence(student, teacher, batch.tokens, t, dt, noise=batch.noise))

    @abstractmethod
    def divergence(
        self,
        student: Denoiser,
        teacher: Denoiser,
        tokens: TokenIds,
        t: Time,
        dt: float,
        *,
        noise: Noise,
    ) -> PerPosition:
        """Compute the divergence at the positions that are undecided at ``t``.

        Units: nats. Gradient: reaches the student's parameters; the teacher runs without a graph.
        """


@final
@dataclass(frozen=True, slots=True)
class SDTT(SelfDistillation):
    """Self-distillation through time (arXiv:2410.21035), for masked families.

    The teacher draws two steps of length ``dt``. Where a token appears in the first of them, its
    prediction at that moment is the target, elsewhere the prediction it gives after it.
    """

    process: Absorbing
    rounds: Rounds
    t_min: float = 0.0
    num_substeps: int = 2
    plan: Single = Single(Phase.STUDENT)

    def divergence(
        self,
        student: Denoiser,
        teacher: Denoiser,
        tokens: TokenIds,
        t: Time,
        dt: float,
        *,
        noise: Noise,
    ) -> PerPosition:
        """See base class; KL from the target to the student, both over words."""
        x_0 = SoftTokens.hard(tokens, vocab_size=self.process.vocab_size)
        noisy = self.process.corrupt(x_0, t, noise=noise)
        target = self._target(teacher, noisy, t, dt, noise)
        raw = student(noisy.x_in, noisy.at_t.sigma, at(noisy.positions))
        return _kl(target, self.process.predict(raw))

    @torch.no_grad()
    def _target(
        self, teacher: Denoiser, noisy: Noisy, t: Time, dt: float, noise: Noise
    ) -> LogProbs:
        # Rows of the target, one per masked position; filled in as tokens appear.
        x, positions = noisy.x_t, noisy.positions
        row_of = torch.full((x.numel(),), -1, device=x.device)
        row_of[positions] = torch.arange(len(positions), device=x.device)
        size = block_rows(self.process.vocab_size, x.device)
        target: LogProbs | None = None
        for k in range(self.num_substeps):
            now, then = ((t - i * dt).clamp(min=EARLIEST) for i in (k, k + 1))
            sigma = self.process.schedule.at(now).sigma
            prediction = self.process.predict(teacher(x, sigma, at(positions)))
            is_masked = (x.flatten()[positions] == self.process.mask_id)[:, None]
            target = prediction if target is None else torch.where(is_masked, prediction, target)

            def ask(
                use: Use, wanted: Positions, *rows: Tensor, stored: LogProbs = prediction
            ) -> Tensor:
                # Indexing copies, so that nothing is written over a row of the target.
                pieces = list(blocks(len(wanted), size)) or [slice(0, 0)]
                return torch.cat(
                    [use(stored[row_of[wanted[i]]], *(row[i] for row in rows)) for i in pieces]
                )

            x = self.process.step(x, now, then, ask, noise=noise)
        assert target is not None
        return target


@final
@dataclass(frozen=True, slots=True)
class DCD(SelfDistillation):
    """Discrete consistency distillation (Duo, arXiv:2506.10892), for uniform families.

    Student and teacher see one clean sequence under one noise, at ``t`` and ``t - dt``: two points
    of a deterministic path of the underlying Gaussian diffusion.
    """

    process: Uniform
    rounds: Rounds
    t_min: float = 0.0
    plan: Single = Single(Phase.STUDENT)

    def divergence(
        self,
        student: Denoiser,
        teacher: Denoiser,
        tokens: TokenIds,
        t: Time,
        dt: float,
        *,
        noise: Noise,
    ) -> PerPosition:
        """See base class; KL from the student to the teacher."""
        x_0 = SoftTokens.hard(tokens, vocab_size=self.process.vocab_size)
        later = (t + dt).clamp(max=1.0)
        same = noise.copy()
        at_s = self.process.corrupt(x_0, (later - dt).clamp(min=0.0), noise=same)
        at_t = self.process.corrupt(x_0, later, noise=noise)
        with torch.no_grad():
            target = self._predict(teacher, at_s)
        return _kl(self._predict(student, at_t), target)

    def _predict(self, network: Denoiser, noisy: Noisy) -> LogProbs:
        return self.process.predict(network(noisy.x_t, noisy.at_t.sigma, at(noisy.positions)))


def _kl(log_p: LogProbs, log_q: LogProbs) -> Tensor:
    """Compute KL(p | q) row by row; logarithms are finite, so a forbidden token adds zero."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)
