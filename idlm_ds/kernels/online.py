"""Softmax of a row of scores in one pass, in Triton.

A program walks along its row in tiles. Each lane of the tile keeps its own maximum and its own
sums until the row ends, so that nothing is exchanged between threads before.
"""

import triton
import triton.language as tl

LOWEST = tl.constexpr(-(2.0**100))
"""Stands for minus infinity, of which a difference would be NaN; the same in every precision."""


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

    Probabilities are ``exp(score - peak) / whole``: more exact than by the logarithm of the sum,
    which is rounded at the magnitude of the scores.

    Returns:
        The maximum, the sum of exponentials above it, and the factor for other sums of the lanes,
        by which they become averages under the softmax.
    """
    peak = tl.max(top, 0)
    part = tl.exp(top - peak)
    whole = tl.sum(total * part, 0)
    return peak, whole, part / whole


@triton.jit
def normaliser(scores, stride, width, BLOCK: tl.constexpr):
    """Read a row once for the maximum and the sum of exponentials above it."""
    top = tl.zeros((BLOCK,), scores.dtype.element_ty) + LOWEST
    total = tl.zeros((BLOCK,), scores.dtype.element_ty)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        score = tl.load(scores + column * stride, mask=column < width, other=LOWEST)
        top, total, _, _ = grow(top, total, score)
    peak, whole, _ = join(top, total)
    return peak, whole


@triton.jit
def probability(scores, stride, column, width, peak, whole):
    """Return the softmax at some entries of a row; zero beyond its end."""
    score = tl.load(scores + column * stride, mask=column < width, other=LOWEST)
    return tl.exp(score - peak) / whole


@triton.jit
def log1p(x):
    """Return ``log(1 + x)`` of non-negative numbers, exact to rounding for small ones too.

    The rounding of 1 + x is known, so it is divided out: Kahan's formula.
    """
    sum_ = 1.0 + x
    rounded = sum_ - 1.0
    return tl.where(rounded > 0, tl.log(sum_) * (x / tl.where(rounded > 0, rounded, 1.0)), x)


@triton.jit
def log_ratio(r, a, b):
    """Return ``log((1 + r a) / (1 + r b))`` of non-negative numbers.

    It keeps its digits where a and b hardly differ and where r is large.
    """
    step = r * (a - b)
    size = log1p(tl.abs(step) / (1.0 + r * tl.minimum(a, b)))
    return tl.where(step < 0, -size, size)
