"""The dense reverse step, which projects every undecided position in every step.

It is the reference that factorised steps are tested against, and repeats published float32 figures.
"""

from dataclasses import dataclass
from functools import partial
from typing import final

import torch

from idlm_ds.kernels.long_rows import in_parts
from idlm_ds.noise import Noise, draw_categorical
from idlm_ds.processes.base import Ask, Process
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

    def __call__(self, x_t: TokenIds, t: Time, s: Time, ask: Ask, *, noise: Noise) -> TokenIds:
        """See ``ReverseStep``; dense in a few rows at a time."""
        length, vocab_size = x_t.shape[1], self.process.vocab_size
        positions = self.process.undecided(x_t)
        is_race = self.precision != FLOAT64
        if is_race:
            u = noise.uniform(length, vocab_size, dtype=torch.float32).flatten(0, 1)
        else:
            u = noise.uniform(length).flatten()

        def draw(raw: Logits, positions: Positions) -> Positions:
            probs = self.process.reverse(raw, x_t, t, s, positions)
            if not is_race:
                return draw_categorical(probs, u[positions])
            # The race of published code, constants included: argmax of p / Exp(1), one random
            # number per vocabulary entry.
            return (probs.float() / (1e-10 - torch.log(u[positions] + 1e-10))).argmax(-1)

        x_s = x_t.clone(memory_format=torch.contiguous_format)
        x_s.view(-1)[positions] = ask(partial(in_parts, draw), positions, positions)
        return x_s
