"""The dense reverse step, which projects every undecided position in every step.

It is the reference that factorised steps are tested against, and repeats published float32 figures.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch

from idlm_ds.noise import Noise, draw_categorical
from idlm_ds.processes.base import Process
from idlm_ds.registry.samplers import FLOAT64
from idlm_ds.tensor_types import Logits, Positions, Time, TokenIds


@final
@dataclass(frozen=True, slots=True)
class ReferenceStep:
    """Draw from ``Process.reverse`` at every undecided position."""

    process: Process

    precision: str = FLOAT64
    """``float32`` draws as published samplers do, by exponential races in that precision.

    Its smallest race time is 6e-8, so tokens that are rarer than that in a step win too seldom:
    with many steps, entropy and generative perplexity both come out too low.
    """

    def __call__(
        self, x_t: TokenIds, t: Time, s: Time, ask: Callable[[Positions], Logits], *, noise: Noise
    ) -> TokenIds:
        """See ``ReverseStep``."""
        length, vocab_size = x_t.shape[1], self.process.vocab_size
        positions = self.process.undecided(x_t)
        probs = self.process.reverse(ask(positions), x_t, t, s, positions)
        if self.precision == FLOAT64:
            drawn = draw_categorical(probs, noise.uniform(length).flatten()[positions])
        else:
            # The race of published code, constants included: argmax of p / Exp(1), one random
            # number per vocabulary entry.
            u = noise.uniform(length, vocab_size, dtype=torch.float32).flatten(0, 1)[positions]
            drawn = (probs.float() / (1e-10 - torch.log(u + 1e-10))).argmax(-1)
        x_s = x_t.clone(memory_format=torch.contiguous_format)
        x_s.view(-1)[positions] = drawn
        return x_s
