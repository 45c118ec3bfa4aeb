"""Angles of the rotary position embedding; ``kernels/rope`` turns queries and keys by them.

Shapes: L positions, E width of a head.
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
