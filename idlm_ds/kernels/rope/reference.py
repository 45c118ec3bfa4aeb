"""Rotary position embedding, half-split.

Shapes: B sequences, H heads, L positions, E width of a head.
"""

import torch
from torch import Tensor


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + E / 2) by the angle of their position.

    Args:
        x: Queries or keys (B, H, L, E).
        cos: Cosines (L, E / 2), float32.
        sin: Sines (L, E / 2), float32.

    Gradient: reaches ``x``. Precision: float32 or wider, rounded once at the end.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    first, second = x.to(wide).chunk(2, dim=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat(turned, dim=-1).to(x.dtype)
