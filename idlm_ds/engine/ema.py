"""Exponential moving average of a trained engine's weights, on its own shards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from idlm_ds.engine.zero import Shards


class Ema:
    """A running mean of the fp32 weights.

    Each rank averages what it owns: exact, no communication, four bytes a parameter divided by
    the number of ranks.
    """

    def __init__(self, shards: Shards, decay: float) -> None:
        self.decay = decay
        self._shards = shards
        self.buffers: list[Tensor] = [w.detach().clone() for w in shards.weights]

    @torch.no_grad()
    def restart(self) -> None:
        """Start over at the present weights."""
        for mean, weight in zip(self.buffers, self._shards.weights, strict=True):
            mean.copy_(weight.detach())

    @torch.no_grad()
    def update(self, count: int) -> None:
        """Step towards the current weights.

        Args:
            count: Updates made so far, this one included; early on the mean is shorter, with
                decay at most ``(1 + count) / (10 + count)``.
        """
        decay = min(self.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(self.buffers, self._shards.weights, 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the network compute with the averaged weights.

        Collective: every rank must enter and leave.
        """
        self._shards.exchange(self.buffers)
        try:
            yield
        finally:
            self._shards.exchange(self.buffers)
