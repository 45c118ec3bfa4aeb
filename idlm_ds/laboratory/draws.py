"""The law of sentences from draws of a chain, where it cannot be summed up.

Shapes: S sentences, B draws of a block, G blocks, L positions, W words.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor

from idlm_ds.laboratory.languages import Language
from idlm_ds.laboratory.streams import BatchNoise
from idlm_ds.processes.base import Denoiser, Process, at
from idlm_ds.processes.latent import draw_latent, show_latent
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.samplers.reverse import ancestral_step, sample_reverse

BLOCK = 4096
"""Draws at a time."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """A chain and how often it is run."""

    process: Process
    denoiser: Denoiser
    steps: int
    count: int
    """Runs; a multiple of ``BLOCK``, or fewer than it."""

    latent: int = 0
    seed: int = 0

    def ends(self, length: int) -> Iterator[Float64[Tensor, "B L W"]]:
        """Yield the distribution of the last step in blocks of runs: one-hot where all is decided.

        The sampler's last two steps, of which the second removes noise of ``LAST_TIME``, are made
        as one: it changes a chain in one of ten thousand positions at most.
        """
        times = uniform_grid(self.steps)[:-2]
        size = min(BLOCK, self.count)
        for block in range(self.count // size):
            noise = BatchNoise(self.seed, "laboratory", self.steps, block, batch=size)
            x_t = self.process.prior(size, length, noise=noise)
            if len(times) > 1:
                step = ancestral_step(self.process)
                x_t = sample_reverse(
                    self.process,
                    step,
                    self.denoiser,
                    x_t,
                    times,
                    noise=noise,
                    latent=self.latent,
                ).tokens
            yield self._last(x_t, times[-1:].expand(size), noise)

    @torch.no_grad()
    def _last(self, x_t: Tensor, t: Tensor, noise: BatchNoise) -> Tensor:
        sigma, positions = self.process.schedule.at(t).sigma, self.process.undecided(x_t)
        z = draw_latent(self.latent, x_t.shape[1], noise=noise)
        shown = show_latent(self.process, x_t, z, x_t=x_t, sigma=sigma)
        raw = self.denoiser(shown, sigma, at(positions)).double()
        zero = torch.zeros_like(t)
        ends = torch.nn.functional.one_hot(x_t, self.process.vocab_size).double()
        rows = self.process.reverse(raw, x_t, t, zero, positions)
        ends.view(-1, self.process.vocab_size)[positions] = rows
        return ends


@final
@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its standard error."""

    value: float
    se: float


def block_laws(language: Language, draws: Draws) -> Float64[Tensor, "G S"]:
    """Estimate the probability of every sentence, from each block of draws.

    The last step is not drawn: its probabilities are averaged, so that a sentence which no draw
    has ended in is known too. Unbiased.
    """
    half = language.length // 2
    starts, start_of = language.sentences[:, :half].unique(dim=0, return_inverse=True)
    rests, rest_of = language.sentences[:, half:].unique(dim=0, return_inverse=True)
    laws = []
    for ends in draws.ends(language.length):
        first = _chances(ends[:, :half], starts)
        second = _chances(ends[:, half:], rests)
        joint = first.T @ second / len(ends)
        laws.append(joint[start_of, rest_of])
    return torch.stack(laws)


def _chances(ends: Float64[Tensor, "B H W"], words: Tensor) -> Float64[Tensor, "B N"]:
    """Multiply the probabilities of the words at some positions, for each of N word lists."""
    chances = torch.ones(len(ends), len(words), dtype=torch.float64)
    for rows, wanted in zip(ends.unbind(1), words.unbind(1), strict=True):
        chances *= rows[:, wanted]
    return chances


def divergence(language: Language, law: Float64[Tensor, " S"]) -> float:
    """Compute ``KL(truth | law)`` in nats; infinite where a true sentence cannot be drawn."""
    return (language.probs * (language.probs.log() - law.log())).sum().item()


def jackknife(language: Language, laws: Float64[Tensor, "G S"]) -> Estimate:
    """Estimate the divergence and its error from blocks, less the bias of the logarithm.

    The error of an infinite one, or of one from a single block, is not known: NaN.
    """
    count = len(laws)
    whole = divergence(language, laws.mean(0))
    if count == 1 or math.isinf(whole):
        return Estimate(whole, math.nan)
    without = [divergence(language, (laws.sum(0) - law) / (count - 1)) for law in laws]
    left_out = torch.tensor(without, dtype=torch.float64)
    value = count * whole - (count - 1) * left_out.mean()
    se = ((count - 1) * left_out.var(correction=0)).sqrt()
    return Estimate(value.item(), se.item())
