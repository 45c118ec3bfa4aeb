"""The bound of UDLM and Duo for soft targets in three passes over two rows, in Triton."""

import torch
import triton
import triton.language as tl

from idlm_ds.kernels.launch import launch_rows
from idlm_ds.kernels.online import log_ratio, normaliser, probability
from idlm_ds.tensor_types import Logits, PerPosition, Positions


def soft_uniform_loss(
    raw: Logits,
    target: Logits,
    weight: PerPosition,
    alpha: PerPosition,
    floor: PerPosition,
    state: Positions,
) -> tuple[PerPosition, Logits]:
    """See ``reference.py``; the derivative is in the memory of ``raw``."""
    scores, per_row = (raw, target), (weight, alpha, floor, state)
    return launch_rows(_soft_uniform_loss, scores, per_row, dtype=torch.float64), raw


@triton.jit
def _soft_uniform_loss(
    raw,
    target,
    weight,
    alpha,
    floor,
    state,
    nats,
    raw_row,
    raw_column,
    target_row,
    target_column,
    width,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    raw += row * raw_row
    target += row * target_row
    here = tl.load(state + row)
    w, a, b = tl.load(weight + row), tl.load(alpha + row), tl.load(floor + row)
    ratio = a / b

    peak_f, whole_f = normaliser(raw, raw_column, width, BLOCK)
    peak_g, whole_g = normaliser(target, target_column, width, BLOCK)
    f_i = probability(raw, raw_column, here, width, peak_f, whole_f).to(tl.float64)
    g_i = probability(target, target_column, here, width, peak_g, whole_g).to(tl.float64)

    # KL(q | q_f), and the average under f of the derivative of the loss by f.
    r, alpha_, floor_ = ratio.to(peak_f.dtype), a.to(peak_f.dtype), b.to(peak_f.dtype)
    divergence = tl.zeros((BLOCK,), raw.dtype.element_ty)
    pull = tl.zeros((BLOCK,), raw.dtype.element_ty)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        f = probability(raw, raw_column, column, width, peak_f, whole_f)
        g = probability(target, target_column, column, width, peak_g, whole_g)
        q = alpha_ * g + floor_
        divergence += q * log_ratio(r, g, f)
        pull += f * q / (1.0 + r * f)
    w /= a * g_i + b
    excess = ratio * (g_i - f_i) / (1.0 + ratio * f_i)
    log_d = log_ratio(ratio, g_i, f_i)
    tl.store(nats + row, w * (tl.sum(divergence.to(tl.float64), 0) + excess - log_d))

    # Derivative by f: r (-q_j + [j = i] (1 - d)) / (1 + r f_j), where d - 1 is the excess.
    at_state = -excess / (1.0 + ratio * f_i)
    mean = (at_state * f_i - tl.sum(pull.to(tl.float64), 0)).to(r.dtype)
    at_state, scale = at_state.to(r.dtype), (w * ratio).to(r.dtype)
    # The entry of the state was read by all threads; one of them overwrites it.
    tl.debug_barrier()
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        f = probability(raw, raw_column, column, width, peak_f, whole_f)
        q = alpha_ * probability(target, target_column, column, width, peak_g, whole_g) + floor_
        slope = tl.where(column == here, at_state, 0.0) - q / (1.0 + r * f) - mean
        tl.store(raw + column * raw_column, scale * f * slope, mask=column < width)
