"""Inverse distillation (IDLM, arXiv:2602.19066)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from idlm_ds.noise import Noise
from idlm_ds.objectives.alternation import Alternation, Phase
from idlm_ds.objectives.base import Cut, Method, StepInput, StepLoss, mean_of
from idlm_ds.processes.base import Denoiser, Noisy, Process, at
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.tensor_types import Logits, PerPosition, Time, TokenIds

INPUT, SAMPLE = "t-input", "t"
"""Uses of times: of the text the student is given, and of its samples that are noised again."""


@final
@dataclass(frozen=True, slots=True)
class IDLM(Method):
    """The fake descends the diffusion loss on student samples; the student descends the gap."""

    process: Process

    is_input_differentiated: bool = True
    """Whether the student's gradient also passes through the networks to what they are shown.

    Only Duo shows them something with a graph. Without this path the method is DMD-like: the
    teacher and the fake score the sample, and nothing flows back through them.
    """

    plan: Alternation = Alternation()
    t_min: float = 0.0
    """Smallest time at which the student's samples are noised again."""

    input_t_min: float = 0.0
    """Smallest time of the text the student is given."""

    loss_names: ClassVar[Mapping[Phase, str]] = {Phase.FAKE: "fake loss", Phase.STUDENT: "gap"}

    @property
    def smallest_times(self) -> Mapping[str, float]:
        """See base class."""
        return {INPUT: self.input_t_min, SAMPLE: self.t_min}

    def loss(self, phase: Phase, networks: Mapping[str, Denoiser], batch: StepInput) -> StepLoss:
        """See base class."""
        noise, t = batch.noise, batch.times[SAMPLE]
        # Student input: data (B, L) noised to its own times, to be answered at (P,) positions.
        given = self.student_input(batch.tokens, batch.times[INPUT], noise=noise)
        if phase is Phase.FAKE:
            # Student sample: soft rows (P, V), without a graph.
            with torch.no_grad():
                x_0 = self.process.relax(self.generate(networks["student"], given), given)
            return StepLoss(self.fake_loss(networks["fake"], x_0, t, noise=noise))
        # The graph is cut at the student's scores (P, V). The loss is differentiated down to the
        # leaf, through teacher and fake where they are shown something soft; the student's own
        # backward starts from that derivative. So no backward runs through two engines, and the
        # activations of teacher and fake are gone before the student's are used.
        output = self.generate(networks["student"], given)
        leaf = output.detach().requires_grad_()
        x_0 = self.process.relax(leaf, given)
        judged = self._noise_and_score(networks["teacher"], networks["fake"], x_0, t, noise)
        metrics = self._metrics(*judged, batch.tokens.numel()) if batch.is_logged else {}
        return StepLoss(self._gap(*judged), metrics, Cut(output, leaf))

    def student_input(self, tokens: TokenIds, t: Time, *, noise: Noise) -> Noisy:
        """Noise data to time ``t``, as input of the student."""
        x_0 = SoftTokens.hard(tokens, vocab_size=self.process.vocab_size)
        return self.process.corrupt(x_0, t, noise=noise)

    def generate(self, student: Denoiser, given: Noisy) -> Logits:
        """Run the student once on its input; ``process.relax`` turns the scores into a sequence."""
        return student(given.x_in, given.at_t.sigma, at(given.positions))

    def fake_loss(self, fake: Denoiser, x_0: SoftTokens, t: Time, *, noise: Noise) -> PerPosition:
        """Compute the diffusion loss of the fake on student samples (eq. 9 of arXiv:2602.19066v1).

        Units: nats. Gradient: reaches the fake's parameters; pass a detached ``x_0``.
        """
        noisy = self.process.corrupt(x_0, t, noise=noise)
        return self.process.loss(fake(noisy.x_in, noisy.at_t.sigma, at(noisy.positions)), noisy)

    def gap(
        self, teacher: Denoiser, fake: Denoiser, x_0: SoftTokens, t: Time, *, noise: Noise
    ) -> PerPosition:
        """Compute teacher loss minus fake loss on one shared draw (eq. 10 of arXiv:2602.19066v1).

        Units: nats. Gradient: reaches ``x_0``. Where the networks are shown hard tokens no
        gradient passes through them, and they run without a graph.
        """
        return self._gap(*self._noise_and_score(teacher, fake, x_0, t, noise))

    def _noise_and_score(
        self, teacher: Denoiser, fake: Denoiser, x_0: SoftTokens, t: Time, noise: Noise
    ) -> tuple[Noisy, Logits, Logits]:
        """Noise a student sample once and run both networks on it."""
        noisy = self.process.corrupt(x_0, t, noise=noise)
        x_in = noisy.x_in if self.is_input_differentiated else noisy.x_in.detach()
        read = at(noisy.positions)
        with torch.set_grad_enabled(x_in.requires_grad):
            raw_teacher = teacher(x_in, noisy.at_t.sigma, read)
            raw_fake = fake(x_in, noisy.at_t.sigma, read)
        return noisy, raw_teacher, raw_fake

    def _gap(self, noisy: Noisy, raw_teacher: Logits, raw_fake: Logits) -> PerPosition:
        return self.process.gap(raw_teacher, raw_fake, noisy)

    @torch.no_grad()
    def _metrics(
        self, noisy: Noisy, raw_teacher: Logits, raw_fake: Logits, num_tokens: int
    ) -> dict[str, torch.Tensor]:
        """Compute both losses (nats per token) and statistics of the student's output.

        Entropy (nats) and largest probability are means over the positions the student answered;
        the gradient reaches those of them that were noised again.
        """
        x_0, process = noisy.x_0, self.process
        return {
            "teacher_loss": mean_of(process.loss(raw_teacher, noisy), count=num_tokens),
            "fake_loss": mean_of(process.loss(raw_fake, noisy), count=num_tokens),
            "entropy": mean_of(-x_0.neg_entropy(x_0.positions)),
            "max_prob": mean_of(x_0.probs.amax(-1)),
            "grad_share": mean_of(x_0.is_soft(noisy.positions), count=num_tokens),
        }


def dmd(process: Process, **settings: object) -> IDLM:
    """Build IDLM without the gradient through what teacher and fake are shown (DMD-like)."""
    return IDLM(process, is_input_differentiated=False, **settings)  # type: ignore[arg-type]
