"""The score entropy bound of SEDD in two passes, in Triton."""

import torch
import triton
import triton.language as tl

from idlm_ds.kernels.launch import launch_rows
from idlm_ds.kernels.online import LOWEST, grow, join
from idlm_ds.kernels.rows import FORBIDDEN
from idlm_ds.tensor_types import Logits, PerPosition, Positions


def soft_score_entropy(
    raw: Logits, target: Logits, weight: PerPosition, mask_id: int
) -> tuple[PerPosition, Logits]:
    """See ``reference.py``."""
    nats = launch_rows(_soft_score_entropy, (raw, target), (weight,), mask_id, dtype=raw.dtype)
    return nats.to(torch.result_type(weight, raw)), raw


def hard_score_entropy(
    raw: Logits, target: Positions, weight: PerPosition, mask_id: int
) -> tuple[PerPosition, Logits]:
    """See ``reference.py``."""
    per_row, settings = (target, weight), {"FORBIDDEN": FORBIDDEN}
    nats = launch_rows(_hard_score_entropy, (raw,), per_row, mask_id, dtype=raw.dtype, **settings)
    return nats.to(torch.result_type(weight, raw)), raw


@triton.jit
def _soft_score_entropy(
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
    words = tl.log((width - 1).to(tl.float64)).to(zeros.dtype)
    top, total, inner, ratios = zeros + LOWEST, zeros, zeros, zeros
    for first in range(0, width, BLOCK):
        column = first + lanes
        is_word = (column < width) & (column != mask_id)
        x = tl.load(raw + column * raw_column, mask=is_word, other=LOWEST)
        t = tl.load(target + column * target_column, mask=is_word, other=LOWEST)
        top, total, shrink, exps = grow(top, total, t)
        inner = inner * shrink + exps * (t - x)
        ratios += tl.exp(x - words)
    peak, whole, share = join(top, total)
    # <G, log G - score>, the score being raw - words.
    expected = tl.sum(inner * share, 0) - peak - tl.log(whole) + words
    w = tl.load(weight + row).to(zeros.dtype)
    tl.store(nats + row, w * (tl.sum(ratios, 0) - 1.0 + expected))

    for first in range(0, width, BLOCK):
        column = first + lanes
        is_word = (column < width) & (column != mask_id)
        x = tl.load(raw + column * raw_column, mask=is_word, other=LOWEST)
        t = tl.load(target + column * target_column, mask=is_word, other=LOWEST)
        slope = w * (tl.exp(x - words) - tl.exp(t - peak) / whole)
        tl.store(raw + column * raw_column, slope, mask=column < width)


@triton.jit
def _hard_score_entropy(
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
    zeros = tl.zeros((BLOCK,), raw.dtype.element_ty)
    words = tl.log((width - 1).to(tl.float64)).to(zeros.dtype)
    right = tl.load(target + row)
    expected = tl.load(raw + right * raw_column, mask=right != mask_id, other=FORBIDDEN) - words
    w = tl.load(weight + row).to(zeros.dtype)

    # The right entry is read by all threads; one of them overwrites it.
    tl.debug_barrier()
    # One pass: the derivative needs no sum of the row.
    ratios = zeros
    for first in range(0, width, BLOCK):
        column = first + lanes
        is_word = (column < width) & (column != mask_id)
        x = tl.load(raw + column * raw_column, mask=is_word, other=LOWEST)
        ratio = tl.exp(x - words)
        ratios += ratio
        slope = w * (ratio - tl.where(column == right, 1.0, 0.0))
        tl.store(raw + column * raw_column, slope, mask=column < width)
    tl.store(nats + row, w * (tl.sum(ratios, 0) - 1.0 - expected))
