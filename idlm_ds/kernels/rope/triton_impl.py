"""Rotary position embedding in one pass, from any strides to adjacent rows, in Triton.

Shapes: B sequences, H heads, L positions, E width of a head.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from idlm_ds.kernels.launch import launch, power_of_two

POSITIONS = 32
"""Positions that one program rotates."""


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """See ``reference.py``; queries and keys may be views of one array of both."""
    rotated: Tensor = _Rope.apply(x, cos.contiguous(), sin.contiguous())
    return rotated


def _rotated(x_BHLE: Tensor, cos: Tensor, sin: Tensor, *, back: bool) -> Tensor:
    batch, heads, length, width = x_BHLE.shape
    out = torch.empty(x_BHLE.shape, dtype=x_BHLE.dtype, device=x_BHLE.device)
    launch(
        _rope,
        (batch * heads, triton.cdiv(length, POSITIONS)),
        *(x_BHLE, cos, sin, out, *x_BHLE.stride(), heads, length, width // 2),
        BACK=back,
        POSITIONS=POSITIONS,
        PAIRS=power_of_two(width // 2),
        num_warps=4,
    )
    return out


class _Rope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        return _rotated(slope, *ctx.saved_tensors, back=True), None, None


@triton.jit
def _rope(
    x,
    cos,
    sin,
    out,
    x_sequence,
    x_head,
    x_position,
    x_feature,
    heads,
    length,
    half,
    BACK: tl.constexpr,
    POSITIONS: tl.constexpr,
    PAIRS: tl.constexpr,
):
    lane = tl.program_id(0).to(tl.int64)
    position = (tl.program_id(1) * POSITIONS + tl.arange(0, POSITIONS))[:, None]
    pair = tl.arange(0, PAIRS)[None, :]
    inside = (position < length) & (pair < half)
    wide = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    x += lane // heads * x_sequence + lane % heads * x_head + position * x_position
    first = tl.load(x + pair * x_feature, mask=inside, other=0.0).to(wide)
    second = tl.load(x + (pair + half) * x_feature, mask=inside, other=0.0).to(wide)
    c = tl.load(cos + position * half + pair, mask=inside, other=0.0).to(wide)
    s = tl.load(sin + position * half + pair, mask=inside, other=0.0).to(wide)
    if BACK:
        s = -s
    out += (lane * length + position) * 2 * half
    narrow = out.dtype.element_ty
    tl.store(out + pair, (first * c - second * s).to(narrow), mask=inside)
    tl.store(out + pair + half, (second * c + first * s).to(narrow), mask=inside)
