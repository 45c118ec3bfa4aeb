"""Token and time embeddings.

Shapes: B sequences, L positions, P positions of a flattened batch, V vocabulary entries,
D hidden width, C condition width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FREQUENCIES = 256
MAX_PERIOD = 10_000.0


class SoftEmbedding(nn.Module):
    """Look-up for token ids (B, L), weighted mean for scores (P, V).

    Both live in one module so that ZeRO-3 gathers the table for either. Soft input arrives as
    logits, as the published Duo networks take it, and is normalised here in float32.
    """

    def __init__(self, vocab_size: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocab_size, hidden))

    def forward(self, x: Tensor) -> Tensor:
        return embed(x, self.embedding)


def embed(x: Tensor, table: Tensor) -> Tensor:
    """Look up rows of a table (V, D) for token ids, or average them under the softmax of scores."""
    if not x.is_floating_point():
        return F.embedding(x, table)
    return (x.float().softmax(-1) @ table.float()).to(table.dtype)


class TimeEmbedding(nn.Module):
    """Sinusoids of the total noise, then a two-layer network: (B,) to (B, C)."""

    def __init__(self, cond: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, cond), nn.SiLU(), nn.Linear(cond, cond))

    def forward(self, sigma_B: Tensor) -> Tensor:
        half = FREQUENCIES // 2
        steps = torch.arange(half, dtype=torch.float32, device=sigma_B.device)
        angle = sigma_B.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * steps / half)
        waves = torch.cat([angle.cos(), angle.sin()], dim=-1)
        return self.mlp(waves.to(next(self.mlp.parameters()).dtype))
