"""Inverse distillation (IDLM, arXiv:2602.19066)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from idlm_ds.kernels.learn import learn_rows
from idlm_ds.kernels.projection import ScoreRows
from idlm_ds.noise import Noise
from idlm_ds.objectives.alternation import Alternation, Phase
from idlm_ds.objectives.base import Method, StepInput, StepLoss
from idlm_ds.objectives.nested import read_together
from idlm_ds.objectives.scored import (
    FakeLoss,
    Gap,
    GapWithInput,
    InputPath,
    Scored,
    share_of_norm,
)
from idlm_ds.processes.base import Denoiser, Head, Noisy, Process
from idlm_ds.processes.latent import draw_latent, show_latent
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.tensor_types import SoftInput, Time, TokenIds

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

    full_noise_fraction: float = 0.0
    """Share of the texts the student is given that are at time 1; in [0, 1)."""

    noisings: int = 1
    """Times a student's sample is noised again in the student's phase; the gap is their mean."""

    latent: int = 0
    """Entries of the student's latent at every position; 0 for none."""

    loss_names: ClassVar[Mapping[Phase, str]] = {Phase.FAKE: "fake loss", Phase.STUDENT: "gap"}

    @property
    def smallest_times(self) -> Mapping[str, float]:
        """See base class."""
        return {INPUT: self.input_t_min} | dict.fromkeys(self.sample_uses, self.t_min)

    @property
    def sample_uses(self) -> list[str]:
        """Uses of times at which one sample is noised again; the fake learns from the first."""
        return [SAMPLE, *(f"{SAMPLE}-{number}" for number in range(2, self.noisings + 1))]

    def loss(self, phase: Phase, networks: Mapping[str, Denoiser], batch: StepInput) -> StepLoss:
        """See base class."""
        # Student input: data (B, L) noised to its own times, to be answered at (P,) positions.
        t = self.input_times(batch.times[INPUT])
        given = self.student_input(batch.tokens, t, noise=batch.noise)
        if phase is Phase.FAKE:
            return self._fake_phase(networks, given, batch)
        return self._student_phase(networks, given, batch)

    def _fake_phase(
        self, networks: Mapping[str, Denoiser], given: Noisy, batch: StepInput
    ) -> StepLoss:
        """Fit the fake to student samples (eq. 9 of arXiv:2602.19066v1)."""
        nats: list[Tensor] = []

        def judge(answer: ScoreRows) -> Tensor:
            # Student sample: soft at (P,) positions, drawn only where a token stays visible.
            noisy = self._noise_again(answer, given, batch, SAMPLE)
            scored = Scored.of(noisy, with_hard=True)
            loss = FakeLoss(self.process, scored, answer)

            def read(head: Head) -> Tensor:
                return head.fused(learn_rows, scored.positions, scored.pieces, loss)

            with torch.enable_grad():
                nats.append(networks["fake"](noisy.x_in, noisy.at_t.sigma, read))
            return nats[0].detach()

        with torch.no_grad():
            student = (networks["student"],)
            read_together(student, given.x_in, given.at_t.sigma, given.positions, judge)
        return StepLoss(nats[0])

    def _student_phase(
        self, networks: Mapping[str, Denoiser], given: Noisy, batch: StepInput
    ) -> StepLoss:
        """Move the student along the gap (eq. 10 of arXiv:2602.19066v1)."""
        judges = networks["teacher"], networks["fake"]
        metrics: dict[str, Tensor] = {}

        def learn(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            answer = ScoreRows(hidden, weight, bias)
            gaps: list[Tensor] = []
            for use in self.sample_uses:
                noisy = self._noise_again(answer, given, batch, use)
                nats, own_metrics = self._gap(judges, answer, noisy, batch)
                gaps.append(nats / self.noisings)
                for name, sums in own_metrics.items():
                    metrics[name] = metrics[name] + sums if name in metrics else sums
            return torch.stack(gaps).sum()

        def read(head: Head) -> Tensor:
            return head.fused(learn, given.positions)

        nats = networks["student"](given.x_in, given.at_t.sigma, read)
        return StepLoss(nats, metrics, is_value=batch.is_logged)

    def _gap(
        self, judges: Sequence[Denoiser], answer: ScoreRows, noisy: Noisy, batch: StepInput
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Judge one noising of the student's sample; the total gap, and metrics of it."""
        opened = self._opened(noisy)
        # Rows (S,) that carry a gradient; all of them where the value is wanted.
        scored = Scored.of(noisy, with_hard=batch.is_logged)
        own = answer.hidden[scored.answer_rows], answer.weight, answer.bias
        metrics: dict[str, Tensor] = {}
        nats: list[Tensor] = []
        squares: list[Tensor] = []

        def descend(teacher: ScoreRows, fake: ScoreRows) -> Tensor:
            kind = Gap if opened is None else GapWithInput
            gap = kind(self.process, scored, teacher, fake, batch.is_logged)
            if batch.is_logged:
                metrics.update(gap.metrics(batch.tokens.numel()))
            with torch.enable_grad():
                nats.append(learn_rows(*own, scored.soft_pieces, gap) + gap.of_hard())
            squares.append(gap.squares)
            return gap.transmitted()

        x_in, sigma = opened or noisy.x_in, noisy.at_t.sigma
        with torch.set_grad_enabled(opened is not None):
            sent = read_together(judges, x_in, sigma, scored.positions, descend)
        if opened is not None:
            # Through what teacher and fake were shown, back to the student's answer.
            (slope,) = torch.autograd.grad(sent, opened.scores)
            logged = batch.is_logged
            path = InputPath(self.process, scored, opened, slope, is_measured=logged)
            nats.append(learn_rows(*own, scored.soft_pieces, path))
            if batch.is_logged:
                metrics["input_share"] = share_of_norm(path.squares, *squares)
        return torch.stack(nats).sum(), metrics

    def input_times(self, t: Time) -> Time:
        """Move the last ``full_noise_fraction`` of stratified times to 1, and stretch the rest."""
        if not self.full_noise_fraction:
            return t
        first = self.input_t_min
        return (first + (t - first) / (1.0 - self.full_noise_fraction)).clamp(max=1.0)

    def student_input(self, tokens: TokenIds, t: Time, *, noise: Noise) -> Noisy:
        """Noise data to time ``t``, as input of the student; a latent goes beside it."""
        x_0 = SoftTokens.hard(tokens, vocab_size=self.process.vocab_size)
        noisy = self.process.corrupt(x_0, t, noise=noise)
        z = draw_latent(self.latent, tokens.shape[1], noise=noise)
        sigma = noisy.at_t.sigma
        x_in = show_latent(self.process, noisy.x_in, z, x_t=noisy.x_t, sigma=sigma)
        return replace(noisy, x_in=x_in)

    @torch.no_grad()
    def _noise_again(self, answer: ScoreRows, given: Noisy, batch: StepInput, use: str) -> Noisy:
        """Noise the student's sample to one of its second times."""
        x_0 = self.process.lazily(answer, given)
        return self.process.corrupt(x_0, batch.times[use], noise=batch.noise)

    def _opened(self, noisy: Noisy) -> SoftInput | None:
        """Return an input through which a gradient is wanted, where there is one."""
        if noisy.input_gain is None or not self.is_input_differentiated:
            return None
        assert isinstance(noisy.x_in, SoftInput)
        return replace(noisy.x_in, scores=noisy.x_in.scores.detach().requires_grad_())


def dmd(process: Process, **settings: object) -> IDLM:
    """Build IDLM without the gradient through what teacher and fake are shown (DMD-like)."""
    return IDLM(process, is_input_differentiated=False, **settings)  # type: ignore[arg-type]
