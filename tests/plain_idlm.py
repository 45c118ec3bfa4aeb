"""The losses of a distillation step as one graph over whole rows of scores."""

import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.objectives.idlm import IDLM
from idlm_ds.processes.base import Denoiser, Noisy, at
from idlm_ds.processes.soft_tokens import SoftTokens


def generate(student: Denoiser, given: Noisy) -> Tensor:
    """Scores of the student at the positions it is to answer."""
    return student(given.x_in, given.at_t.sigma, at(given.positions))


def fake_loss(
    objective: IDLM, fake: Denoiser, x_0: SoftTokens, t: Tensor, *, noise: Noise
) -> Tensor:
    """Diffusion loss of the fake on student samples (eq. 9 of arXiv:2602.19066v1)."""
    noisy = objective.process.corrupt(x_0, t, noise=noise)
    return objective.process.loss(fake(noisy.x_in, noisy.at_t.sigma, at(noisy.positions)), noisy)


def gap(
    objective: IDLM, teacher: Denoiser, fake: Denoiser, x_0: SoftTokens, t: Tensor, *, noise: Noise
) -> Tensor:
    """Teacher loss minus fake loss on one shared draw (eq. 10 of arXiv:2602.19066v1)."""
    noisy = objective.process.corrupt(x_0, t, noise=noise)
    x_in = noisy.x_in if objective.is_input_differentiated else noisy.x_in.detach()
    with torch.set_grad_enabled(x_in.requires_grad):
        raws = [net(x_in, noisy.at_t.sigma, at(noisy.positions)) for net in (teacher, fake)]
    return objective.process.gap(*raws, noisy)
