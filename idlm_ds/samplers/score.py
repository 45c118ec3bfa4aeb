"""SEDD's own reverse steps, in which the ratios also decide how soon a token is revealed.

An ancestral step reveals masked positions at the rate of the forward process and uses ratios only
to choose the token. These two take the rate from the ratios too, so every masked position is
projected in every step; where ratios sum to what true ones sum to, ``Analytic`` is ancestral.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from idlm_ds.kernels.long_rows import in_parts
from idlm_ds.noise import Noise, draw_categorical
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Ask
from idlm_ds.tensor_types import Logits, PerPosition, Positions, Time, TokenIds


@dataclass(frozen=True, slots=True)
class ScoreStep(ABC):
    """A step that reveals each token with a probability proportional to its ratio."""

    process: Absorbing

    def __call__(self, x_t: TokenIds, t: Time, s: Time, ask: Ask, *, noise: Noise) -> TokenIds:
        """See ``ReverseStep``. Where the probabilities add to more than one they are scaled down.

        Precision: float64, in a few rows at a time.
        """
        length, mask_id = x_t.shape[1], self.process.mask_id
        masked = self.process.undecided(x_t)
        row = masked // length
        u = noise.uniform(length).flatten()[masked]
        log_share, is_last = self._share(t, s).log()[row], (s == 0)[row]

        def draw(raw: Logits, log_share: PerPosition, is_last: Tensor, u: PerPosition) -> Positions:
            probs = self.process.log_ratio(raw.double(), log_share).exp()
            probs[:, mask_id] = 0.0
            # Staying masked takes the probability that is left; at s=0 nothing may stay masked,
            # and the draw normalises what the tokens have.
            probs[:, mask_id] = torch.where(is_last, 0.0, (1.0 - probs.sum(-1)).clamp(min=0.0))
            return draw_categorical(probs, u)

        x_s = x_t.clone(memory_format=torch.contiguous_format)
        x_s.view(-1)[masked] = ask(partial(in_parts, draw), masked, log_share, is_last, u)
        return x_s

    @abstractmethod
    def _share(self, t: Time, s: Time) -> Time:
        """Share of masked positions that this step reveals under the true ratios.

        Ratios alone are never formed: at t=1 they may all be 0, and their factor infinite.
        """


@final
@dataclass(frozen=True, slots=True)
class Analytic(ScoreStep):
    """Tweedie's step: exact where the ratios are, for steps of any size (arXiv:2310.16834)."""

    def _share(self, t: Time, s: Time) -> Time:
        masked_t = self.process.schedule.at(t).masked
        return (masked_t - self.process.schedule.target(s).masked) / masked_t


@final
@dataclass(frozen=True, slots=True)
class Euler(ScoreStep):
    """A step of first order in ``t - s``; the last one draws from the ratios at its start."""

    def _share(self, t: Time, s: Time) -> Time:
        at_t = self.process.schedule.at(t)
        return (t - s) * -at_t.dalpha / at_t.masked
