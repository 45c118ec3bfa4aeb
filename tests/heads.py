"""Heads of networks that are no networks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from idlm_ds.kernels.projection import blocks


class ScoresOf:
    """Answers with the scores that a function gives, which are its hidden states too."""

    block = 30_000
    """Most rows that ``each`` hands out at a time."""

    def __init__(self, scores: Callable[[Tensor], Tensor]) -> None:
        self.scores = scores

    def fused(self, operator: Callable[..., Tensor], positions: Tensor, *inputs: Any) -> Tensor:
        """Run an operator on scores that are projected by an identity."""
        raw = self.scores(positions)
        return operator(raw, torch.eye(raw.shape[1], dtype=raw.dtype), None, *inputs)

    @torch.no_grad()
    def each(self, use: Callable[..., Tensor], positions: Tensor, *rows: Tensor) -> Tensor:
        """Apply a function to copies of the scores, block by block."""
        return each_of(self.scores(positions), use, *rows, block=self.block)


def each_of(
    raw: Tensor, use: Callable[..., Tensor], *rows: Tensor, block: int = ScoresOf.block
) -> Tensor:
    """Apply a function to copies of ready scores, block by block."""
    pieces = list(blocks(len(raw), block)) or [slice(0, 0)]
    return torch.cat([use(raw[piece].clone(), *(row[piece] for row in rows)) for piece in pieces])


def answering(scores: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Make the ``ask`` of a reverse step of a function from positions to scores."""

    def ask(use: Callable[..., Tensor], positions: Tensor, *rows: Tensor) -> Tensor:
        return each_of(scores(positions), use, *rows)

    return ask
