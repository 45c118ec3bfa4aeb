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

    def __init__(self, shards: Shards, decay: float | None) -> None:
        """Start at the present weights.

        Args:
            shards: The weights.
            decay: Share of the mean that an update keeps; None for no mean, which takes no memory.
        """
        self.decay = decay
        self._shards = shards
        kept = [] if decay is None else shards.weights
        self.buffers: list[Tensor] = [weight.detach().clone() for weight in kept]

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
        if self.decay is None:
            return
        decay = min(self.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(self.buffers, self._shards.weights, 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the network compute with the averaged weights.

        Collective: every rank must enter and leave.

        Raises:
            RuntimeError: There is no mean.
        """
        if self.decay is None:
            raise RuntimeError("no running mean of these weights is kept")
        self._shards.exchange(self.buffers)
        try:
            yield
        finally:
            self._shards.exchange(self.buffers)
