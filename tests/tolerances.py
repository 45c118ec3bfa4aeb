"""How close is equal, stated once per dtype, and how far chance may go."""

import math

import torch
from torch import Tensor

CLOSE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Both relative and absolute."""


def assert_close(got: Tensor, expected: Tensor) -> None:
    """Compare at the tolerance of the dtype, which must be the same."""
    tolerance = CLOSE[expected.dtype]
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def assert_frequencies(counts: Tensor, probs: Tensor) -> None:
    """Compare counts with the distribution they were drawn from.

    Cells of probability zero must be empty. The rest is a chi-square test at the bound that chance
    crosses less than once in 20 000 times, whatever the number of cells.
    """
    counts, probs = counts.double().flatten(), probs.double().flatten()
    possible = probs > 0
    assert counts[~possible].sum() == 0
    expected = counts.sum() * probs[possible] / probs.sum()
    assert expected.min() > 5, "too few draws for a chi-square test"
    chi_square = ((counts[possible] - expected) ** 2 / expected).sum().item()
    freedom = len(expected) - 1
    assert chi_square < freedom + 2 * math.sqrt(10 * freedom) + 20


def within_standard_errors(got: float, expected: float, se: float) -> bool:
    """Whether a mean over a fixed seed is as near its expectation as four errors allow."""
    return abs(got - expected) < 4 * se
