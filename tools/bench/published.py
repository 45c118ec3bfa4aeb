"""The diffusion families as the published training code writes them, in plain PyTorch.

Every position is projected, scores of all networks are dense float32 (B, L, V), a student's answer
is a dense simplex, and noise on it is drawn by an exponential race over the whole vocabulary in
float32. It is a yardstick for speed and memory, written charitably: only positions that are masked
enter SEDD's sums, and terms that cancel from a gap are left out.

Shapes: B sequences, L positions, V vocabulary entries.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from idlm_ds.processes.base import Process, at
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.processes.udlm import UDLM

NEVER = -1e6


@dataclass(frozen=True, slots=True)
class Clock:
    """A schedule at the times (B,) of a batch, in float32."""

    alpha: Tensor
    slope: Tensor
    """``-dalpha``."""

    sigma: Tensor


@dataclass(frozen=True, slots=True)
class Draw:
    """A draw of the forward process."""

    x_t: Tensor
    """Hard tokens (B, L)."""

    x_in: Tensor
    """What networks are shown: the same, or scores (B, L, V)."""

    clock: Clock


@dataclass(frozen=True)
class Published(ABC):
    """A family, dense."""

    process: Process
    generator: Generator

    def clock(self, t: Tensor) -> Clock:
        """Read the schedule."""
        read = getattr(self.process, "clock", self.process.schedule).at(t.double())
        return Clock(read.alpha.float(), -read.dalpha.float(), read.sigma.float())

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw numbers in [0, 1)."""
        device = self.generator.device
        return torch.rand(shape, generator=self.generator, device=device, dtype=dtype)

    def times(self, batch: int, t_min: float) -> Tensor:
        """Draw a time per sequence, one in each stratum, in random order."""
        order = torch.randperm(batch, generator=self.generator, device=self.generator.device)
        strata = (order + self.uniform(batch)) / batch
        return t_min + (1 - t_min) * strata

    def raw(self, network: nn.Module, draw: Draw) -> Tensor:
        """Project every position: scores (B, L, V)."""
        x_t = draw.x_t
        every = torch.arange(x_t.numel(), device=x_t.device)
        with _shown(network, draw.x_in):
            return network(x_t, draw.clock.sigma, at(every)).view(*x_t.shape, -1)

    def race(self, probs: Tensor) -> Tensor:
        """Draw tokens (B, L) from dense probabilities: argmax of ``p / Exp(1)``."""
        u = self.uniform(*probs.shape, dtype=probs.dtype)
        return (probs / (1e-10 - (u + 1e-10).log())).argmax(-1)

    def answer(self, network: nn.Module, given: Draw) -> Tensor:
        """Return a student's answer, a dense simplex (B, L, V)."""
        return self.log_probs(self.raw(network, given), given).exp()

    def loss(self, target: Tensor, raw: Tensor, draw: Draw) -> Tensor:
        """Compute the diffusion loss of dense scores on a dense target, per token."""
        return self.summed(target, self.scores(raw, draw), draw) / draw.x_t.numel()

    def gap(self, target: Tensor, raw_teacher: Tensor, raw_fake: Tensor, draw: Draw) -> Tensor:
        """Compute teacher loss minus fake loss, per token."""
        return self.loss(target, raw_teacher, draw) - self.loss(target, raw_fake, draw)

    def scores(self, raw: Tensor, draw: Draw) -> Tensor:
        """Turn raw scores into what the loss reads."""
        return self.log_probs(raw, draw)

    @abstractmethod
    def log_probs(self, raw: Tensor, draw: Draw) -> Tensor:
        """Turn raw scores into log-probabilities of the clean token."""

    @abstractmethod
    def given(self, tokens: Tensor, t: Tensor) -> Draw:
        """Noise data."""

    @abstractmethod
    def noised(self, target: Tensor, t: Tensor) -> Draw:
        """Noise a dense simplex."""

    @abstractmethod
    def summed(self, target: Tensor, scores: Tensor, draw: Draw) -> Tensor:
        """Add the loss of all positions."""


class PublishedMDLM(Published):
    """Masks, and the SUBS parameterisation."""

    @property
    def mask(self) -> int:
        """Id of the mask."""
        return self.process.mask_id

    def given(self, tokens: Tensor, t: Tensor) -> Draw:
        """See base class."""
        clock = self.clock(t)
        x_t = torch.where(self.uniform(*tokens.shape) < 1 - clock.alpha[:, None], self.mask, tokens)
        return Draw(x_t, x_t, clock)

    def noised(self, target: Tensor, t: Tensor) -> Draw:
        """See base class."""
        clock = self.clock(t)
        with torch.no_grad():
            mixture = clock.alpha[:, None, None] * target.detach()
            mixture[..., self.mask] += 1 - clock.alpha[:, None]
            x_t = self.race(mixture)
        return Draw(x_t, x_t, clock)

    def log_probs(self, raw: Tensor, draw: Draw) -> Tensor:
        """See base class; a visible token is its own answer."""
        raw[..., self.mask] += NEVER
        log_probs = raw - raw.logsumexp(-1, keepdim=True)
        visible = draw.x_t != self.mask
        log_probs[visible] = NEVER
        log_probs[visible, draw.x_t[visible]] = 0
        return log_probs

    def summed(self, target: Tensor, scores: Tensor, draw: Draw) -> Tensor:
        """See base class."""
        weight = (draw.clock.slope / (1 - draw.clock.alpha))[:, None] * (draw.x_t == self.mask)
        return -(weight * (target * scores).sum(-1)).sum()


class PublishedSEDD(PublishedMDLM):
    """Masks, and score entropy."""

    def scores(self, raw: Tensor, draw: Draw) -> Tensor:
        """See base class; log ratios, scaled by the noise, zero at the state itself."""
        ratio = draw.clock.sigma.expm1().log()[:, None, None]
        scaled = raw - ratio - torch.log(torch.tensor(raw.shape[-1] - 1.0))
        return torch.scatter(scaled, -1, draw.x_t[..., None], torch.zeros_like(scaled[..., :1]))

    def summed(self, target: Tensor, scores: Tensor, draw: Draw) -> Tensor:
        """See base class, without the constant of the target."""
        masked = draw.x_t == self.mask
        row = masked.nonzero()[:, 0]
        alpha, slope = draw.clock.alpha[row], draw.clock.slope[row]
        log_ratios, soft = scores[masked], target[masked]
        words = torch.arange(scores.shape[-1], device=scores.device) != self.mask
        total = (log_ratios.exp() * words).sum(-1)
        inner = (soft * log_ratios).sum(-1)
        return (slope / alpha * (total - alpha / (1 - alpha) * inner)).sum()


class PublishedUDLM(Published):
    """Any token in place of any other."""

    def given(self, tokens: Tensor, t: Tensor) -> Draw:
        """See base class."""
        clock = self.clock(t)
        other = (self.uniform(*tokens.shape) * self.process.vocab_size).long()
        is_replaced = self.uniform(*tokens.shape) < 1 - clock.alpha[:, None]
        x_t = torch.where(is_replaced, other, tokens)
        return Draw(x_t, x_t, clock)

    def noised(self, target: Tensor, t: Tensor) -> Draw:
        """See base class."""
        clock = self.clock(t)
        with torch.no_grad():
            alpha = clock.alpha[:, None, None]
            x_t = self.race(alpha * target.detach() + (1 - alpha) / target.shape[-1])
        return Draw(x_t, x_t, clock)

    def log_probs(self, raw: Tensor, draw: Draw) -> Tensor:
        """See base class."""
        return raw.log_softmax(-1)

    def summed(self, target: Tensor, scores: Tensor, draw: Draw) -> Tensor:
        """See base class."""
        x_bar, log_x = self._lifted(target, draw)
        own = self._braces(x_bar, x_bar, log_x, draw)
        return (self._weight(draw) * (own - self._network_part(x_bar, scores, draw))).sum()

    def gap(self, target: Tensor, raw_teacher: Tensor, raw_fake: Tensor, draw: Draw) -> Tensor:
        """See base class."""
        x_bar, _ = self._lifted(target, draw)
        teacher, fake = (
            self._network_part(x_bar, self.scores(raw, draw), draw)
            for raw in (raw_teacher, raw_fake)
        )
        return (self._weight(draw) * (fake - teacher)).sum() / draw.x_t.numel()

    def _lifted(self, probs: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return V times the noised distribution, and its logarithm."""
        alpha = draw.clock.alpha[:, None, None]
        lifted = probs.shape[-1] * alpha * probs + (1 - alpha)
        return lifted, lifted.log()

    def _network_part(self, x_bar: Tensor, scores: Tensor, draw: Draw) -> Tensor:
        return self._braces(x_bar, *self._lifted(scores.exp(), draw), draw)

    def _braces(self, x_bar: Tensor, bar: Tensor, log_bar: Tensor, draw: Draw) -> Tensor:
        """Return ``V / bar_i + sum_j x_bar_j / x_bar_i log(bar_i / bar_j)`` at the state i."""
        here = draw.x_t[..., None]
        x_i, bar_i = x_bar.gather(-1, here)[..., 0], bar.gather(-1, here)[..., 0]
        ratios = bar.shape[-1] * bar_i.log() - (x_bar * log_bar).sum(-1)
        return bar.shape[-1] / bar_i + ratios / x_i

    def _weight(self, draw: Draw) -> Tensor:
        return (-draw.clock.slope / (self.process.vocab_size * draw.clock.alpha))[:, None]


class PublishedDuo(PublishedUDLM):
    """Gaussian noise on the simplex; networks are shown scores of a softmax."""

    def given(self, tokens: Tensor, t: Tensor) -> Draw:
        """See base class."""
        return self.noised(F.one_hot(tokens, self.process.vocab_size).float(), t)

    def noised(self, target: Tensor, t: Tensor) -> Draw:
        """See base class; a gradient passes to the target through what networks are shown."""
        gamma = self.process.clock.gamma(t.double()).float()[:, None, None]
        device = self.generator.device
        noise = torch.randn(target.shape, generator=self.generator, device=device)
        mixed = torch.sigmoid(-gamma).sqrt() * target + torch.sigmoid(gamma).sqrt() * noise
        return Draw(mixed.detach().argmax(-1), mixed / self.process.tau, self.clock(t))


@contextmanager
def _shown(network: nn.Module, x_in: Tensor) -> Iterator[None]:
    """Let the network's first layer take scores (B, L, V): a dense mixture of all embeddings."""

    def mix(layer: nn.Module, *_: object) -> Tensor:
        return (x_in.softmax(-1) @ layer.embedding.float()).to(layer.embedding.dtype)

    if not x_in.is_floating_point():
        yield
        return
    hook = network.vocab_embed.register_forward_hook(mix)
    try:
        yield
    finally:
        hook.remove()


FORMS = {MDLM: PublishedMDLM, SEDD: PublishedSEDD, UDLM: PublishedUDLM, Duo: PublishedDuo}


def published(process: Process, generator: Generator) -> Published:
    """Take the published form of a family."""
    return FORMS[type(process)](process, generator)
