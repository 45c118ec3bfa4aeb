"""Exact categorical draws that read each row once and one block of it again, in Triton."""

import torch
import triton
import triton.language as tl

from idlm_ds.kernels.launch import launch, power_of_two, tile
from idlm_ds.tensor_types import PerPosition, Positions, Probs


def draw(probs: Probs, uniform: PerPosition) -> Positions:
    """See ``reference.py``."""
    rows, width = probs.shape
    ids = torch.empty(rows, dtype=torch.int64, device=probs.device)
    block = tile(width)
    launch(
        _draw,
        (rows,),
        *(probs, uniform.double().contiguous(), ids, *probs.stride(), width),
        BLOCKS=power_of_two(triton.cdiv(width, block)),
        BLOCK=block,
        num_warps=4,
    )
    return ids


@triton.jit
def _draw(
    probs,
    uniform,
    ids,
    row_stride,
    column_stride,
    width,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    probs += row * row_stride
    lanes, index = tl.arange(0, BLOCK), tl.arange(0, BLOCKS)
    sums = tl.zeros((BLOCKS,), tl.float64)
    for first in range(0, width, BLOCK):
        column = first + lanes
        p = tl.load(probs + column * column_stride, mask=column < width, other=0.0)
        sums = tl.where(index == first // BLOCK, tl.sum(p.to(tl.float64), 0), sums)
    target = tl.load(uniform + row) * tl.sum(sums, 0)
    block = _first_above(sums, index, target, BLOCKS)
    target -= tl.sum(tl.where(index < block, sums, 0.0), 0)
    column = block * BLOCK + lanes
    p = tl.load(probs + column * column_stride, mask=column < width, other=0.0).to(tl.float64)
    entry = block * BLOCK + _first_above(p, lanes, target, BLOCK)
    tl.store(ids + row, entry.to(tl.int64))


@triton.jit
def _first_above(values, place, target, COUNT: tl.constexpr):
    """Find the first positive value whose cumulative sum exceeds the target, or the last one."""
    is_above = (values > 0) & (tl.cumsum(values, 0) > target)
    first = tl.min(tl.where(is_above, place, COUNT), 0)
    last = tl.max(tl.where(values > 0, place, 0), 0)
    return tl.minimum(first, last)
