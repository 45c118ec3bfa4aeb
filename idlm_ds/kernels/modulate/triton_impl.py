"""Adaptive layer norm and gated residual in one pass each way, in Triton.

Shapes: N rows of hidden states, M rows of the condition, each for N / M rows in a row, D hidden
width, C parts into which those rows are cut in the backward pass.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from idlm_ds.kernels.launch import launch, power_of_two
from idlm_ds.kernels.modulate.reference import EPS

PART = 16
"""Rows that one program of a backward pass sums over."""


def modulate(x: Tensor, weight: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """See ``reference.py``."""
    modulated: Tensor = _Modulate.apply(x, weight, shift, scale)
    return modulated


def add_gated(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    """See ``reference.py``."""
    added: Tensor = _AddGated.apply(x, gate, y)
    return added


def _flat(x: Tensor) -> Tensor:
    """View or copy as rows whose features are adjacent."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _settings(width: int) -> dict[str, int]:
    block = power_of_two(width)
    return {"BLOCK": block, "num_warps": 4 if block <= 1024 else 8}


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class _Modulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        x_ND, shift_MD, scale_MD = _flat(x), _flat(shift), _flat(scale)
        rows, width = x_ND.shape
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        mean, inverse = torch.empty(2, rows, dtype=_wide(x), device=x.device)
        launch(
            _modulate,
            (rows,),
            *(x_ND, weight, shift_MD, scale_MD, out, mean, inverse),
            *(x_ND.stride(0), shift_MD.stride(0), scale_MD.stride(0)),
            *(width, rows // max(len(shift_MD), 1)),
            EPS=EPS,
            **_settings(width),
        )
        ctx.save_for_backward(x, weight, scale, mean, inverse)
        ctx.shift_shape = shift.shape
        ctx.shift_dtype = shift.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, ...]:
        x, weight, scale, mean, inverse = ctx.saved_tensors
        x_ND, scale_MD, slope_ND = _flat(x), _flat(scale), _flat(slope)
        width, groups = x.shape[-1], len(scale_MD)
        length = len(x_ND) // max(groups, 1)
        parts = triton.cdiv(length, PART)
        into_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        sums = torch.empty(2, groups, parts, width, dtype=mean.dtype, device=x.device)
        launch(
            _modulate_back,
            (groups, parts),
            *(slope_ND, x_ND, weight, scale_MD, mean, inverse, into_x, sums[0], sums[1]),
            *(slope_ND.stride(0), x_ND.stride(0), scale_MD.stride(0)),
            *(width, length),
            PART=PART,
            **_settings(width),
        )
        # Sums over the rows of a sequence, of the slope and of its product with the norm.
        plain, normed = sums.sum(2)
        into_weight = ((1 + scale_MD.to(normed.dtype)) * normed).sum(0)
        into_scale = normed * weight.to(normed.dtype)
        return (
            into_x,
            into_weight.to(weight.dtype),
            plain.view(ctx.shift_shape).to(ctx.shift_dtype),
            into_scale.view(scale.shape).to(scale.dtype),
        )


class _AddGated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
        x_ND, gate_MD, y_ND = _flat(x), _flat(gate), _flat(y)
        rows, width = x_ND.shape
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        launch(
            _add_gated,
            (rows,),
            *(x_ND, gate_MD, y_ND, out),
            *(x_ND.stride(0), gate_MD.stride(0), y_ND.stride(0)),
            *(width, rows // max(len(gate_MD), 1)),
            **_settings(width),
        )
        ctx.save_for_backward(gate, y)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, ...]:
        gate, y = ctx.saved_tensors
        gate_MD, y_ND, slope_ND = _flat(gate), _flat(y), _flat(slope)
        width, groups = y.shape[-1], len(gate_MD)
        length = len(y_ND) // max(groups, 1)
        parts = triton.cdiv(length, PART)
        into_y = torch.empty(y.shape, dtype=y.dtype, device=y.device)
        sums = torch.empty(groups, parts, width, dtype=_wide(y), device=y.device)
        launch(
            _add_gated_back,
            (groups, parts),
            *(slope_ND, gate_MD, y_ND, into_y, sums),
            *(slope_ND.stride(0), gate_MD.stride(0), y_ND.stride(0)),
            *(width, length),
            PART=PART,
            **_settings(width),
        )
        return slope, sums.sum(1).view(gate.shape).to(gate.dtype), into_y


@triton.jit
def _modulate(
    x,
    weight,
    shift,
    scale,
    out,
    mean,
    inverse,
    x_row,
    shift_row,
    scale_row,
    width,
    length,
    EPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    group = row // length
    feature = tl.arange(0, BLOCK)
    inside = feature < width
    wide = mean.dtype.element_ty
    h = tl.load(x + row * x_row + feature, mask=inside, other=0.0).to(wide)
    center = tl.sum(h, 0) / width
    h = tl.where(inside, h - center, 0.0)
    deviation = 1.0 / tl.sqrt(tl.sum(h * h, 0) / width + EPS)
    w = tl.load(weight + feature, mask=inside, other=0.0).to(wide)
    add = tl.load(shift + group * shift_row + feature, mask=inside, other=0.0).to(wide)
    times = tl.load(scale + group * scale_row + feature, mask=inside, other=0.0).to(wide)
    y = h * deviation * w * (1.0 + times) + add
    tl.store(out + row * width + feature, y.to(out.dtype.element_ty), mask=inside)
    tl.store(mean + row, center)
    tl.store(inverse + row, deviation)


@triton.jit
def _modulate_back(
    slope,
    x,
    weight,
    scale,
    mean,
    inverse,
    into_x,
    plain,
    normed,
    slope_row,
    x_row,
    scale_row,
    width,
    length,
    PART: tl.constexpr,
    BLOCK: tl.constexpr,
):
    group, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    feature = tl.arange(0, BLOCK)
    inside = feature < width
    wide = mean.dtype.element_ty
    w = tl.load(weight + feature, mask=inside, other=0.0).to(wide)
    times = tl.load(scale + group * scale_row + feature, mask=inside, other=0.0).to(wide)
    factor = w * (1.0 + times)
    sum_plain = tl.zeros((BLOCK,), wide)
    sum_normed = tl.zeros((BLOCK,), wide)
    for index in range(part * PART, tl.minimum((part + 1) * PART, length)):
        row = group * length + index
        g = tl.load(slope + row * slope_row + feature, mask=inside, other=0.0).to(wide)
        h = tl.load(x + row * x_row + feature, mask=inside, other=0.0).to(wide)
        deviation = tl.load(inverse + row)
        h = tl.where(inside, (h - tl.load(mean + row)) * deviation, 0.0)
        sum_plain += g
        sum_normed += g * h
        # Through the norm: without its mean and its share along the normed row.
        s = g * factor
        s = deviation * (s - tl.sum(s, 0) / width - h * (tl.sum(s * h, 0) / width))
        tl.store(into_x + row * width + feature, s.to(into_x.dtype.element_ty), mask=inside)
    place = (group * tl.num_programs(1) + part) * width + feature
    tl.store(plain + place, sum_plain, mask=inside)
    tl.store(normed + place, sum_normed, mask=inside)


@triton.jit
def _add_gated(x, gate, y, out, x_row, gate_row, y_row, width, length, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    feature = tl.arange(0, BLOCK)
    inside = feature < width
    wide = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    h = tl.load(x + row * x_row + feature, mask=inside, other=0.0).to(wide)
    g = tl.load(gate + row // length * gate_row + feature, mask=inside, other=0.0).to(wide)
    more = tl.load(y + row * y_row + feature, mask=inside, other=0.0).to(wide)
    tl.store(out + row * width + feature, (h + g * more).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _add_gated_back(
    slope,
    gate,
    y,
    into_y,
    into_gate,
    slope_row,
    gate_row,
    y_row,
    width,
    length,
    PART: tl.constexpr,
    BLOCK: tl.constexpr,
):
    group, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    feature = tl.arange(0, BLOCK)
    inside = feature < width
    wide = into_gate.dtype.element_ty
    g = tl.load(gate + group * gate_row + feature, mask=inside, other=0.0).to(wide)
    total = tl.zeros((BLOCK,), wide)
    for index in range(part * PART, tl.minimum((part + 1) * PART, length)):
        row = group * length + index
        s = tl.load(slope + row * slope_row + feature, mask=inside, other=0.0).to(wide)
        total += s * tl.load(y + row * y_row + feature, mask=inside, other=0.0).to(wide)
        tl.store(into_y + row * width + feature, (s * g).to(into_y.dtype.element_ty), mask=inside)
    place = (group * tl.num_programs(1) + part) * width + feature
    tl.store(into_gate + place, total, mask=inside)
