"""A world of two positions, small enough that a reverse chain can be written out as matrices."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Read
from tests.heads import ScoresOf

EPS = 1e-3
"""Of the log-linear schedule."""


class OneStream(Noise):
    """Every sequence draws from one generator: for very many sequences, in one piece."""

    def __init__(self, seed: int, batch: int) -> None:
        super().__init__([seed])
        self._batch = batch

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.rand((self._batch, *shape), generator=self._generators[0], dtype=dtype)


class World:
    """A denoiser whose scores depend on both positions, and on how much noise there is."""

    def __init__(
        self, vocab_size: int, *, shift: float = 0.0, of_noise: float = 1.0, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (vocab_size, vocab_size, 2, vocab_size)
        self._always, self._in_noise = (
            torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)
        )
        self._always += shift
        self._in_noise *= of_noise
        self.vocab_size = vocab_size
        self.states = torch.cartesian_prod(torch.arange(vocab_size), torch.arange(vocab_size))

    def raw(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Scores at both positions, (B, 2, V)."""
        left, right = x.unbind(1)
        blend = torch.tanh(sigma)[:, None, None]
        return self._always[left, right] + blend * self._in_noise[left, right]

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        rows = self.raw(x, sigma).flatten(0, 1)
        return read(ScoresOf(lambda positions: rows[positions]))

    def every(self, sigma: float) -> Tensor:
        """Scores in every state of the world, (S, 2, V)."""
        return self.raw(self.states, torch.full((len(self.states),), sigma).double())

    def counts(self, tokens: Tensor) -> Tensor:
        """How often each state occurs, in the order of ``states``."""
        flat = tokens[:, 0] * self.vocab_size + tokens[:, 1]
        return flat.bincount(minlength=self.vocab_size**2)

    def follow(
        self, weight: Tensor, times: Sequence[float], rows: Callable[[float, float], Tensor]
    ) -> Tensor:
        """Push a distribution over states through the transition matrices of a chain.

        ``rows(t, s)`` are probabilities of each token at each position in every state, (S, 2, V).
        """
        for t, s in zip(times[:-1], times[1:], strict=True):
            at_left, at_right = rows(t, s).unbind(1)
            transition = at_left[:, :, None] * at_right[:, None, :]
            assert torch.allclose(transition.sum((1, 2)), torch.ones_like(weight), atol=1e-12)
            weight = weight @ transition.flatten(1)
        return weight


def alpha(t: float) -> float:
    """Survival probability of the log-linear schedule; a chain that reaches 0 is clean there."""
    return 1 - (1 - EPS) * t


def answer(raw: Tensor, mask_id: int | None) -> Tensor:
    """Probabilities of the clean token; the mask is none."""
    if mask_id is not None:
        is_mask = torch.arange(raw.shape[-1]) == mask_id
        raw = raw.masked_fill(is_mask, -math.inf)
    return raw.softmax(-1)


def masked_rows(f: Tensor, states: Tensor, mask_id: int, alpha_t: float, alpha_s: float) -> Tensor:
    """``[(alpha_s - alpha_t) f + (1 - alpha_s) m] / (1 - alpha_t)`` where masked."""
    here = F.one_hot(states, f.shape[-1]).double()
    mask = F.one_hot(torch.tensor(mask_id), f.shape[-1]).double()
    drawn = ((alpha_s - alpha_t) * f + (1 - alpha_s) * mask) / (1 - alpha_t)
    return torch.where((states == mask_id)[..., None], drawn, here)


def uniform_rows(f: Tensor, states: Tensor, alpha_t: float, alpha_s: float) -> Tensor:
    """The posterior of uniform noise at ``x_t = i``, averaged over the answer as published."""
    size, ratio = f.shape[-1], alpha_t / alpha_s
    here = F.one_hot(states, size).double()
    f_i = (f * here).sum(-1, keepdim=True)
    above = (
        size * alpha_t * f * here
        + (ratio - alpha_t) * here
        + (alpha_s - alpha_t) * f
        + (1 - ratio) * (1 - alpha_s) / size
    )
    return above / (size * alpha_t * f_i + 1 - alpha_t)


def likeliest_rows(f: Tensor, states: Tensor, mask_id: int | None) -> Tensor:
    """The best answer, where the family still asks for one."""
    here, best = (F.one_hot(x, f.shape[-1]).double() for x in (states, f.argmax(-1)))
    return best if mask_id is None else torch.where((states == mask_id)[..., None], best, here)
