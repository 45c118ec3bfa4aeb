"""Uniform diffusion (UDLM, arXiv:2412.10193)."""

from dataclasses import dataclass
from typing import final

import torch

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Noisy
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.processes.uniform import Uniform
from idlm_ds.tensor_types import Time


@final
@dataclass(frozen=True, slots=True)
class UDLM(Uniform):
    """Noise is drawn on tokens, and networks are shown tokens."""

    def corrupt(self, x_0: SoftTokens, t: Time, *, noise: Noise) -> Noisy:
        """See base class."""
        at_t = self.schedule.at(t)
        length = x_0.tokens.shape[1]
        # Whether a token is replaced does not depend on it: only tokens that stay are drawn.
        u_token = noise.uniform(length)
        is_replaced = noise.uniform(length) < at_t.masked[:, None]
        any_token = (noise.uniform(length) * self.vocab_size).long()
        tokens = x_0.draw(u_token, ~is_replaced)
        x_t = torch.where(is_replaced, any_token, tokens)
        return Noisy(x_0=x_0, x_t=x_t, x_in=x_t, at_t=at_t, positions=self.undecided(x_t))
