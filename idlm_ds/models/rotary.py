"""Rotary position embedding, half-split.

Shapes: B sequences, L positions, H heads, E width of a head.
"""

import torch
from torch import Tensor

BASE = 10_000.0


def rotary_angles(
    length: int, head_dim: int, *, device: torch.device, base: float = BASE
) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of shape (L, E / 2), float32."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    position = torch.arange(length, dtype=torch.float32, device=device)
    angle = position[:, None] * base**-exponent
    return angle.cos(), angle.sin()


def rotate(x_BHLE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + E / 2) by the angle of their position."""
    first, second = x_BHLE.chunk(2, dim=-1)
    cos, sin = cos.to(x_BHLE.dtype), sin.to(x_BHLE.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
