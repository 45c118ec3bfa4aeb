"""Softmax of a row of scores in one pass, in Triton.

A program walks along its row in tiles. Each lane of the tile keeps its own maximum and its own
sums until the row ends, so that nothing is exchanged between threads before.
"""

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1e30)
"""Stands for minus infinity, of which a difference would be NaN."""


@triton.jit
def grow(top, total, score):
    """Take a tile into the maxima and the sums of exponentials of its lanes.

    Of the two exponentials that an online softmax needs, one is always 1.

    Returns:
        Maxima, sums, the factor for other sums of the same lanes, and the exponentials.
    """
    step = score - top
    small = tl.exp(-tl.abs(step))
    shrink = tl.where(step > 0, small, 1.0)
    exps = tl.where(step > 0, 1.0, small)
    return tl.maximum(top, score), total * shrink + exps, shrink, exps


@triton.jit
def join(top, total):
    """Join lanes at the end of a row.

    Returns:
        The normaliser in nats, and the share of the row's sum that one unit of each lane's has.
    """
    peak = tl.max(top, 0)
    part = tl.exp(top - peak)
    whole = tl.sum(total * part, 0)
    return peak + tl.log(whole), part / whole


@triton.jit
def log1p(x):
    """Return ``log(1 + x)`` of non-negative numbers, exact to rounding for small ones too.

    The rounding of 1 + x is known, so it is divided out: Kahan's formula.
    """
    sum_ = 1.0 + x
    rounded = sum_ - 1.0
    return tl.where(rounded > 0, tl.log(sum_) * (x / tl.where(rounded > 0, rounded, 1.0)), x)
