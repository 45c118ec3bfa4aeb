"""Mean of a few rows of a table, none of which is copied, in Triton.

Shapes: P positions, N entries of all of them, V vocabulary entries, D hidden width.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from idlm_ds.kernels.launch import launch, power_of_two
from idlm_ds.kernels.online import normaliser, probability

ENTRIES = 8
"""Entries of a position that a program reads at a time."""

FEATURES = 256
"""Most features that a program holds of an entry at a time."""


def soft_embedding(
    table: Float[Tensor, "V D"],
    ids: Int[Tensor, " N"],
    scores: Float[Tensor, " N"],
    counts: Int[Tensor, " P"],
) -> Float[Tensor, "P D"]:
    """See ``reference.py``."""
    wide = scores.to(torch.promote_types(table.dtype, torch.float32)).contiguous()
    mean: Tensor = _SoftEmbedding.apply(
        table.contiguous(), ids.contiguous(), wide, counts.contiguous()
    )
    return mean


def _settings(width: int) -> dict[str, int]:
    return {"ENTRIES": ENTRIES, "FEATURES": min(FEATURES, power_of_two(width)), "num_warps": 4}


class _SoftEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, scores: Tensor, counts: Tensor) -> Tensor:
        positions, width = len(counts), table.shape[1]
        starts = counts.cumsum(0) - counts
        shares = torch.empty_like(scores)
        out = torch.empty(positions, width, dtype=table.dtype, device=table.device)
        settings = _settings(width)
        launch(
            _soft_embedding,
            (positions, triton.cdiv(width, settings["FEATURES"])),
            *(table, ids, scores, starts, counts, shares, out, width),
            **settings,
        )
        ctx.save_for_backward(table, ids, shares, starts, counts)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        table, ids, shares, starts, counts = ctx.saved_tensors
        slope = slope.contiguous()
        into_table = into_scores = None
        if ctx.needs_input_grad[0]:
            into_table = _by_table(slope, ids, shares, counts, len(table))
        if ctx.needs_input_grad[2]:
            into_scores = torch.empty_like(shares)
            launch(
                _into_scores,
                (len(counts),),
                *(table, ids, shares, starts, counts, slope, into_scores, table.shape[1]),
                **_settings(table.shape[1]),
            )
        return into_table, None, into_scores, None


def _by_table(slope: Tensor, ids: Tensor, shares: Tensor, counts: Tensor, size: int) -> Tensor:
    """Sum over the entries of each row of the table, by torch, always in the same order.

    Precision: a summand is rounded to the dtype of the table, as by autograd of the reference.
    """
    every = torch.arange(len(counts), device=counts.device)
    position = every.repeat_interleave(counts, output_size=len(ids))
    each = (shares[:, None] * slope[position]).to(slope.dtype)
    return torch.ops.aten.embedding_dense_backward(each, ids, size, -1, False)


@triton.jit
def _rows(table, ids, entry, count, feature, width, wide: tl.constexpr):
    """Load features of the rows of some entries; zeros beyond the edges."""
    row = tl.load(ids + entry, mask=entry < count, other=0).to(tl.int64)
    inside = (entry < count)[:, None] & (feature < width)[None, :]
    place = row[:, None] * width + feature[None, :]
    return tl.load(table + place, mask=inside, other=0.0).to(wide)


@triton.jit
def _soft_embedding(
    table,
    ids,
    scores,
    starts,
    counts,
    shares,
    out,
    width,
    ENTRIES: tl.constexpr,
    FEATURES: tl.constexpr,
):
    position = tl.program_id(0).to(tl.int64)
    feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    wide: tl.constexpr = scores.dtype.element_ty
    start, count = tl.load(starts + position), tl.load(counts + position)
    peak, whole = normaliser(scores + start, 1, count, ENTRIES)
    total = tl.zeros((ENTRIES, FEATURES), wide)
    for first in range(0, count, ENTRIES):
        entry = first + tl.arange(0, ENTRIES)
        share = probability(scores + start, 1, entry, count, peak, whole)
        if tl.program_id(1) == 0:
            tl.store(shares + start + entry, share, mask=entry < count)
        total += share[:, None] * _rows(table, ids + start, entry, count, feature, width, wide)
    mean = tl.sum(total, 0).to(out.dtype.element_ty)
    tl.store(out + position * width + feature, mean, mask=feature < width)


@triton.jit
def _into_scores(
    table,
    ids,
    shares,
    starts,
    counts,
    slope,
    out,
    width,
    ENTRIES: tl.constexpr,
    FEATURES: tl.constexpr,
):
    position = tl.program_id(0).to(tl.int64)
    wide: tl.constexpr = out.dtype.element_ty
    start, count = tl.load(starts + position), tl.load(counts + position)
    slope += position * width
    shares += start
    out += start
    total = tl.zeros((ENTRIES,), wide)
    for first in range(0, count, ENTRIES):
        entry = first + tl.arange(0, ENTRIES)
        products = tl.zeros((ENTRIES, FEATURES), wide)
        for left in range(0, width, FEATURES):
            feature = left + tl.arange(0, FEATURES)
            g = tl.load(slope + feature, mask=feature < width, other=0.0).to(wide)
            products += g[None, :] * _rows(table, ids + start, entry, count, feature, width, wide)
        by_share = tl.sum(products, 1)
        total += by_share * tl.load(shares + entry, mask=entry < count, other=0.0)
        tl.store(out + entry, by_share, mask=entry < count)
    # The derivative by the mean, along the mean.
    average = tl.sum(total, 0)
    tl.debug_barrier()
    for first in range(0, count, ENTRIES):
        entry = first + tl.arange(0, ENTRIES)
        share = tl.load(shares + entry, mask=entry < count, other=0.0)
        by_share = tl.load(out + entry, mask=entry < count, other=0.0)
        tl.store(out + entry, share * (by_share - average), mask=entry < count)
