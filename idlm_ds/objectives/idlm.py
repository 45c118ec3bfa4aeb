"""Inverse distillation (IDLM, arXiv:2602.19066)."""

from dataclasses import dataclass
from typing import final

import torch

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Denoiser, Noisy, Process, at
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.tensor_types import Logits, PerPosition, Time, TokenIds


@final
@dataclass(frozen=True, slots=True)
class IDLM:
    """The fake descends the diffusion loss on student samples; the student descends the gap.

    Networks come as callables and scores as values: this class knows no engine, and the caller
    decides where the graph is cut.
    """

    process: Process

    is_input_differentiated: bool = True
    """Whether the student's gradient also passes through the networks to what they are shown.

    Only Duo shows them something with a graph. Without this path the method is DMD-like: the
    teacher and the fake score the sample, and nothing flows back through them.
    """

    def student_input(self, tokens: TokenIds, t: Time, *, noise: Noise) -> Noisy:
        """Noise data to time ``t``: what the student turns into a clean sequence."""
        x_0 = SoftTokens.hard(tokens, vocab_size=self.process.vocab_size)
        return self.process.corrupt(x_0, t, noise=noise)

    def generate(self, student: Denoiser, given: Noisy) -> Logits:
        """Run the student once on its input; ``process.relax`` makes the sequence of it."""
        return student(given.x_in, given.at_t.sigma, at(given.positions))

    def fake_loss(self, fake: Denoiser, x_0: SoftTokens, t: Time, *, noise: Noise) -> PerPosition:
        """Diffusion loss of the fake on student samples (eq. 9 of arXiv:2602.19066v1).

        Units: nats. Gradient: reaches the fake's parameters; pass a detached ``x_0``.
        """
        noisy = self.process.corrupt(x_0, t, noise=noise)
        return self.process.loss(fake(noisy.x_in, noisy.at_t.sigma, at(noisy.positions)), noisy)

    def gap(
        self, teacher: Denoiser, fake: Denoiser, x_0: SoftTokens, t: Time, *, noise: Noise
    ) -> PerPosition:
        """Teacher loss minus fake loss on one shared draw (eq. 10 of arXiv:2602.19066v1).

        Units: nats. Gradient: reaches ``x_0``. Where the networks are shown hard tokens no
        gradient passes through them, and they run without a graph.
        """
        noisy = self.process.corrupt(x_0, t, noise=noise)
        x_in = noisy.x_in if self.is_input_differentiated else noisy.x_in.detach()
        read = at(noisy.positions)
        with torch.set_grad_enabled(x_in.requires_grad):
            raw_teacher = teacher(x_in, noisy.at_t.sigma, read)
            raw_fake = fake(x_in, noisy.at_t.sigma, read)
        return self.process.gap(raw_teacher, raw_fake, noisy)
