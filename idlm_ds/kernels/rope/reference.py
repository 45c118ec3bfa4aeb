"""Rotary position embedding, half-split.

Shapes: B sequences, H heads, L positions, E width of a head.
"""

from typing import Any

import torch
from torch import Tensor


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + E / 2) by the angle of their position.

    Args:
        x: Queries or keys (B, H, L, E).
        cos: Cosines (L, E / 2), float32.
        sin: Sines (L, E / 2), float32.

    Gradient: reaches ``x``; it is turned back by the same angle. Precision: float32 or wider,
    rounded once at the end.
    """
    rotated: Tensor = _Turn.apply(x, cos, sin)
    return rotated


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(slope, cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    out = torch.empty_like(wide)
    first, second = wide.chunk(2, -1)
    left, right = out.chunk(2, -1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-1.0)
    torch.mul(second, cos, out=right).addcmul_(first, sin)
    return out.to(x.dtype)
