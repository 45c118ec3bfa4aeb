"""Mean of embeddings under a softmax that is never written to memory, in Triton.

Shapes: P positions, V vocabulary entries, D hidden width.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from idlm_ds.kernels.dispatch import is_interpreted
from idlm_ds.kernels.launch import launch
from idlm_ds.kernels.online import LOWEST
from idlm_ds.tensor_types import Logits

TILES = {2: (64, 32, 256), 4: (32, 32, 128), 8: (32, 16, 64)}
"""Positions, entries and features of a tile, by the bytes of a number in the table."""


def soft_embedding(scores: Logits, table: Tensor) -> Tensor:
    """See ``reference.py``.

    Precision: sums are float32 or wider. With a 16-bit table the softmax is rounded to 16 bits
    for the product; with a float32 one, products are exact to about 2e-6.
    """
    mean: Tensor = _SoftEmbedding.apply(scores, table.contiguous())
    return mean


def _settings(table: Tensor) -> dict[str, Any]:
    positions, entries, features = TILES[table.element_size()]
    return {
        # The interpreter computes with the bits of 16-bit numbers as if they were integers.
        "WIDEN": is_interpreted() and table.element_size() == 2,
        "PRECISION": "tf32x3" if table.dtype == torch.float32 else "ieee",
        "POSITIONS": positions,
        "ENTRIES": entries,
        "FEATURES": features,
        "num_warps": 8,
        "num_stages": 2,
    }


class _SoftEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, table: Tensor) -> Tensor:
        (count, entries), width = scores.shape, table.shape[1]
        wide = torch.promote_types(table.dtype, torch.float32)
        out = torch.empty(count, width, dtype=wide, device=scores.device)
        peak, whole = torch.empty(2, count, dtype=wide, device=scores.device)
        settings = _settings(table)
        grid = (triton.cdiv(count, settings["POSITIONS"]), triton.cdiv(width, settings["FEATURES"]))
        shape = (*scores.stride(), count, entries, width)
        launch(_soft_embedding, grid, scores, table, out, peak, whole, *shape, **settings)
        ctx.save_for_backward(scores, table, out, peak, whole)
        return out.to(table.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
        scores, table, out, peak, whole = ctx.saved_tensors
        (count, entries), width = scores.shape, table.shape[1]
        slope = slope.contiguous()
        # Average of the derivative by probabilities, under them.
        mean = (slope.to(out.dtype) * out).sum(1)
        into_scores = torch.empty(count, entries, dtype=scores.dtype, device=scores.device)
        into_table = torch.empty(entries, width, dtype=table.dtype, device=scores.device)
        settings = _settings(table)
        shape = (*scores.stride(), count, entries, width)
        columns = triton.cdiv(entries, settings["ENTRIES"])
        launch(
            _into_scores,
            (triton.cdiv(count, settings["POSITIONS"]), columns),
            *(scores, table, slope, mean, peak, whole, into_scores, *shape),
            **settings | {"FEATURES": min(settings["FEATURES"], 64)},
        )
        launch(
            _into_table,
            (columns, triton.cdiv(width, settings["FEATURES"])),
            *(scores, slope, peak, whole, into_table, *shape),
            **settings,
        )
        return into_scores, into_table


@triton.jit
def _block(scores, row, entry, row_stride, column_stride, count, entries, wide: tl.constexpr):
    """Load scores of a tile; the lowest beyond the edges."""
    inside = (row < count)[:, None] & (entry < entries)[None, :]
    place = row.to(tl.int64)[:, None] * row_stride + entry[None, :] * column_stride
    return tl.load(scores + place, mask=inside, other=LOWEST).to(wide)


@triton.jit
def _matrix(matrix, row, column, rows, columns, WIDEN: tl.constexpr):
    """Load a tile of a matrix with adjacent rows; zeros beyond the edges."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    place = row.to(tl.int64)[:, None] * columns + column[None, :]
    values = tl.load(matrix + place, mask=inside, other=0.0)
    return values.to(tl.float32) if WIDEN else values


@triton.jit
def _soft_embedding(
    scores,
    table,
    out,
    peak,
    whole,
    row_stride,
    column_stride,
    count,
    entries,
    width,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    POSITIONS: tl.constexpr,
    ENTRIES: tl.constexpr,
    FEATURES: tl.constexpr,
):
    wide: tl.constexpr = out.dtype.element_ty
    row = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    top = tl.zeros((POSITIONS,), wide) + LOWEST
    total = tl.zeros((POSITIONS,), wide)
    mean = tl.zeros((POSITIONS, FEATURES), wide)
    for first in range(0, entries, ENTRIES):
        entry = first + tl.arange(0, ENTRIES)
        score = _block(scores, row, entry, row_stride, column_stride, count, entries, wide)
        higher = tl.maximum(top, tl.max(score, 1))
        shrink = tl.exp(top - higher)
        exps = tl.exp(score - higher[:, None])
        total = total * shrink + tl.sum(exps, 1)
        top = higher
        vectors = _matrix(table, entry, feature, entries, width, WIDEN)
        mean *= shrink[:, None]
        mean = tl.dot(
            exps.to(vectors.dtype), vectors, mean, input_precision=PRECISION, out_dtype=wide
        )
    inside = (row < count)[:, None] & (feature < width)[None, :]
    place = row.to(tl.int64)[:, None] * width + feature[None, :]
    tl.store(out + place, mean / total[:, None], mask=inside)
    if tl.program_id(1) == 0:
        tl.store(peak + row, top, mask=row < count)
        tl.store(whole + row, total, mask=row < count)


@triton.jit
def _into_scores(
    scores,
    table,
    slope,
    mean,
    peak,
    whole,
    out,
    row_stride,
    column_stride,
    count,
    entries,
    width,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    POSITIONS: tl.constexpr,
    ENTRIES: tl.constexpr,
    FEATURES: tl.constexpr,
):
    wide: tl.constexpr = mean.dtype.element_ty
    row = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    entry = tl.program_id(1) * ENTRIES + tl.arange(0, ENTRIES)
    by_probs = tl.zeros((POSITIONS, ENTRIES), wide)
    for first in range(0, width, FEATURES):
        feature = first + tl.arange(0, FEATURES)
        g = _matrix(slope, row, feature, count, width, WIDEN)
        vectors = tl.trans(_matrix(table, entry, feature, entries, width, WIDEN))
        by_probs = tl.dot(g, vectors, by_probs, input_precision=PRECISION, out_dtype=wide)
    is_row = row < count
    top = tl.load(peak + row, mask=is_row, other=0.0)[:, None]
    total = tl.load(whole + row, mask=is_row, other=1.0)[:, None]
    average = tl.load(mean + row, mask=is_row, other=0.0)[:, None]
    score = _block(scores, row, entry, row_stride, column_stride, count, entries, wide)
    by_scores = tl.exp(score - top) / total * (by_probs - average)
    inside = is_row[:, None] & (entry < entries)[None, :]
    place = row.to(tl.int64)[:, None] * entries + entry[None, :]
    tl.store(out + place, by_scores.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _into_table(
    scores,
    slope,
    peak,
    whole,
    out,
    row_stride,
    column_stride,
    count,
    entries,
    width,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    POSITIONS: tl.constexpr,
    ENTRIES: tl.constexpr,
    FEATURES: tl.constexpr,
):
    wide: tl.constexpr = peak.dtype.element_ty
    entry = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    total = tl.zeros((ENTRIES, FEATURES), wide)
    for first in range(0, count, POSITIONS):
        row = first + tl.arange(0, POSITIONS)
        is_row = row < count
        score = _block(scores, row, entry, row_stride, column_stride, count, entries, wide)
        top = tl.load(peak + row, mask=is_row, other=0.0)[:, None]
        share = tl.exp(score - top) / tl.load(whole + row, mask=is_row, other=1.0)[:, None]
        g = _matrix(slope, row, feature, count, width, WIDEN)
        share = tl.trans(share.to(g.dtype))
        total = tl.dot(share, g, total, input_precision=PRECISION, out_dtype=wide)
    inside = (entry < entries)[:, None] & (feature < width)[None, :]
    place = entry.to(tl.int64)[:, None] * width + feature[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)
