"""The law of sentences of a masked chain with a latent.

The mean over latents is taken over draws. Where the gate of the latent is shut, which in masked
families depends on the state and stays so to the end, the rest of the chain is summed up exactly.

Shapes: S sentences, N sets of positions, U states, B draws of a block, G blocks, L positions,
V words and the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor

from idlm_ds.laboratory.chain import (
    PartlyMasked,
    backward,
    in_parts,
    reveal_probabilities,
    word_probs,
)
from idlm_ds.laboratory.streams import BatchNoise
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Denoiser, Read, at
from idlm_ds.processes.latent import draw_latent, show_latent
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.samplers.reverse import ancestral_step, sample_reverse
from idlm_ds.tensor_types import LatentInput, NetworkInput, Time, TokenIds

BLOCK = 4096
"""Draws at a time."""


@final
@dataclass(frozen=True, eq=False)
class LatentChain:
    """A network with a latent, and what of its chain needs no draws."""

    space: PartlyMasked
    process: Absorbing
    denoiser: Denoiser
    latent: int
    """Entries of the latent; with 0 there is none, and everything is summed up."""

    @cached_property
    def true_words(self) -> Float64[Tensor, "S N L"]:
        """Log-probabilities of true words where the latent is zero."""
        shut = _Shut(self.denoiser, self.latent) if self.latent else self.denoiser
        return self.space.true_words(self.space.answers(self.process, shut))

    def block_laws(self, steps: int, *, count: int, seed: int) -> Float64[Tensor, "G S"]:
        """Estimate the probability of every sentence, from each block of draws; unbiased.

        The last step is not drawn either: its probabilities are averaged. It is made in one with
        the sampler's step from ``LAST_TIME`` to 0, which changes fewer than one position in ten
        thousand.

        Args:
            steps: Of the chain.
            count: Runs of the chain: a multiple of ``BLOCK``, or fewer than it.
            seed: Of the noise.
        """
        ahead = self._ahead(reveal_probabilities(self.process, steps))
        size = min(BLOCK, count)
        runs = (
            self._block(steps, ahead, (seed, steps, block), size) for block in range(count // size)
        )
        return torch.stack(list(runs))

    def _ahead(self, reveals: Sequence[float]) -> list[Float64[Tensor, "S N"]]:
        parts = [backward(word_probs(part), reveals) for part in in_parts(self.true_words)]
        return [torch.cat(rows) for rows in zip(*parts, strict=True)]

    def _block(
        self, steps: int, ahead: Sequence[Tensor], path: tuple[int, ...], size: int
    ) -> Float64[Tensor, " S"]:
        times = uniform_grid(steps)
        x_t = self.process.prior(size, self.space.language.length, noise=BatchNoise(0, batch=size))
        law = torch.zeros(len(self.space.language.sentences), dtype=torch.float64)
        for k in range(steps):
            noise = BatchNoise(*path, k, batch=len(x_t))
            if k == steps - 1:
                law += self._last_step(x_t, times[k], noise)
                break
            step = ancestral_step(self.process)
            x_t = sample_reverse(
                self.process,
                step,
                self.denoiser,
                x_t,
                times[k : k + 2],
                noise=noise,
                latent=self.latent,
            ).tokens
            is_open = self._is_open(x_t)
            shut = self.space.counts(x_t[~is_open])
            law += (shut[self.space.index] * ahead[k + 1]).sum(1)
            x_t = x_t[is_open]
            if not len(x_t):
                break
        return law / size

    def _is_open(self, x_t: TokenIds) -> Tensor:
        """Tell which states let the latent in (B,)."""
        no_time = torch.zeros(len(x_t), dtype=torch.float64)
        return self.process.ignorance(x_t, no_time).amax(1) > 0

    @torch.no_grad()
    def _last_step(self, x_t: TokenIds, t: Tensor, noise: BatchNoise) -> Float64[Tensor, " S"]:
        """Sum the probabilities of sentences after a step that reveals everything."""
        t_b = t.expand(len(x_t))
        sigma, positions = self.process.schedule.at(t_b).sigma, self.process.undecided(x_t)
        z = draw_latent(self.latent, x_t.shape[1], noise=noise)
        shown = show_latent(self.process, x_t, z, x_t=x_t, sigma=sigma)
        raw = self.denoiser(shown, sigma, at(positions)).double()
        ends = torch.nn.functional.one_hot(x_t, self.process.vocab_size).double()
        ends.view(-1, self.process.vocab_size)[positions] = self.process.predict(raw).exp()
        return self._total(ends)

    def _total(self, ends: Float64[Tensor, "B L V"]) -> Float64[Tensor, " S"]:
        """Sum the probabilities of sentences, whose words are independent, over draws."""
        sentences, half = self.space.language.sentences, ends.shape[1] // 2
        starts, start_of = sentences[:, :half].unique(dim=0, return_inverse=True)
        rests, rest_of = sentences[:, half:].unique(dim=0, return_inverse=True)
        joint = _chances(ends[:, :half], starts).T @ _chances(ends[:, half:], rests)
        return joint[start_of, rest_of]


def _chances(ends: Float64[Tensor, "B H V"], words: Tensor) -> Float64[Tensor, "B C"]:
    """Multiply the probabilities of the words at some positions, for each of C word lists."""
    chances = torch.ones(len(ends), len(words), dtype=torch.float64)
    for rows, wanted in zip(ends.unbind(1), words.unbind(1), strict=True):
        chances *= rows[:, wanted]
    return chances


@final
@dataclass(frozen=True, slots=True)
class _Shut:
    """A network whose latent is zero."""

    denoiser: Denoiser
    latent: int

    def __call__(self, x: NetworkInput, sigma: Time, read: Read, /) -> Tensor:
        assert isinstance(x, Tensor)
        return self.denoiser(LatentInput(x, torch.zeros(*x.shape, self.latent)), sigma, read)
