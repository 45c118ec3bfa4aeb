"""Mixtures and noise as whole arrays, which the package never makes."""

import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.tensor_types import SoftInput


def of_rows(scores: Tensor, shape: tuple[int, int]) -> SoftInput:
    """Mix all tokens, by the softmax of each row of scores (P, V)."""
    rows, size = scores.shape
    counts = torch.full((rows,), size)
    return SoftInput(scores.flatten(), torch.arange(size).repeat(rows), counts, shape)


def rows_of(x: SoftInput, vocab_size: int) -> Tensor:
    """Scores (P, V) of all tokens, minus infinity where a token has no share."""
    nothing = torch.full((len(x.counts), vocab_size), -torch.inf, dtype=x.scores.dtype)
    return nothing.index_put((x.positions, x.ids), x.scores)


def normal(noise: Noise, length: int, width: int) -> Tensor:
    """Normal numbers (B * length, width) of all streams."""
    return torch.cat([values for _, values in noise.normal_blocks(length, width)])
