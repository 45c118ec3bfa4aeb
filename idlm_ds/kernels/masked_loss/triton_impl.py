"""Cross-entropy of soft and hard targets in two passes, in Triton."""

import torch
import triton
import triton.language as tl

from idlm_ds.kernels.launch import launch_rows
from idlm_ds.kernels.online import LOWEST, grow, join
from idlm_ds.kernels.rows import FORBIDDEN
from idlm_ds.tensor_types import Logits, PerPosition, Positions


def soft_cross_entropy(
    raw: Logits, target: Logits, weight: PerPosition, mask_id: int
) -> tuple[PerPosition, Logits]:
    """See ``reference.py``."""
    nats = launch_rows(_soft_cross_entropy, (raw, target), (weight,), mask_id, dtype=raw.dtype)
    return nats.to(torch.result_type(weight, raw)), raw


def hard_cross_entropy(
    raw: Logits, target: Positions, weight: PerPosition, mask_id: int
) -> tuple[PerPosition, Logits]:
    """See ``reference.py``."""
    per_row, settings = (target, weight), {"FORBIDDEN": FORBIDDEN}
    nats = launch_rows(_hard_cross_entropy, (raw,), per_row, mask_id, dtype=raw.dtype, **settings)
    return nats.to(torch.result_type(weight, raw)), raw


@triton.jit
def _soft_cross_entropy(
    raw,
    target,
    weight,
    nats,
    raw_row,
    raw_column,
    target_row,
    target_column,
    width,
    mask_id,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    raw += row * raw_row
    target += row * target_row
    lanes = tl.arange(0, BLOCK)

    zeros = tl.zeros((BLOCK,), raw.dtype.element_ty)
    top_raw, total_raw = zeros + LOWEST, zeros
    top, total, inner = zeros + LOWEST, zeros, zeros
    for first in range(0, width, BLOCK):
        column = first + lanes
        is_word = (column < width) & (column != mask_id)
        x = tl.load(raw + column * raw_column, mask=is_word, other=LOWEST)
        t = tl.load(target + column * target_column, mask=is_word, other=LOWEST)
        top_raw, total_raw, _, _ = grow(top_raw, total_raw, x)
        top, total, shrink, exps = grow(top, total, t)
        inner = inner * shrink + tl.where(is_word, exps * x, 0.0)
    peak_raw, whole_raw, _ = join(top_raw, total_raw)
    peak, whole, share = join(top, total)
    w = tl.load(weight + row).to(zeros.dtype)
    tl.store(nats + row, w * (peak_raw - tl.sum(inner * share, 0) + tl.log(whole_raw)))

    for first in range(0, width, BLOCK):
        column = first + lanes
        is_word = (column < width) & (column != mask_id)
        x = tl.load(raw + column * raw_column, mask=is_word, other=LOWEST)
        t = tl.load(target + column * target_column, mask=is_word, other=LOWEST)
        slope = w * (tl.exp(x - peak_raw) / whole_raw - tl.exp(t - peak) / whole)
        tl.store(raw + column * raw_column, slope, mask=column < width)


@triton.jit
def _hard_cross_entropy(
    raw,
    target,
    weight,
    nats,
    raw_row,
    raw_column,
    width,
    mask_id,
    FORBIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    raw += row * raw_row
    lanes = tl.arange(0, BLOCK)
    right = tl.load(target + row)
    expected = tl.load(raw + right * raw_column, mask=right != mask_id, other=FORBIDDEN)

    zeros = tl.zeros((BLOCK,), raw.dtype.element_ty)
    top, total = zeros + LOWEST, zeros
    for first in range(0, width, BLOCK):
        column = first + lanes
        is_word = (column < width) & (column != mask_id)
        x = tl.load(raw + column * raw_column, mask=is_word, other=LOWEST)
        top, total, _, _ = grow(top, total, x)
    peak, whole, _ = join(top, total)
    w = tl.load(weight + row).to(zeros.dtype)
    tl.store(nats + row, w * (peak - expected + tl.log(whole)))

    # The right entry was read by all threads; one of them overwrites it.
    tl.debug_barrier()
    for first in range(0, width, BLOCK):
        column = first + lanes
        is_word = (column < width) & (column != mask_id)
        x = tl.load(raw + column * raw_column, mask=is_word, other=LOWEST)
        slope = w * (tl.exp(x - peak) / whole - tl.where(column == right, 1.0, 0.0))
        tl.store(raw + column * raw_column, slope, mask=column < width)
