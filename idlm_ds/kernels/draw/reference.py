"""Exact categorical draws: sums of stretches of a row, then of the entries of one of them.

Shapes: R rows, V vocabulary entries.
"""

from idlm_ds.kernels.long_rows import find_share
from idlm_ds.tensor_types import PerPosition, Positions, Probs


def draw(probs: Probs, uniform: PerPosition) -> Positions:
    """Invert the cumulative distribution, in the order of the vocabulary.

    An entry is drawn if the uniform number, times the sum of the row, lies at or above the sum of
    the entries before it and below that sum with it. An entry of probability zero never is.

    Args:
        probs: Non-negative rows (R, V), which need not be normalised; none is all zero.
        uniform: One number in ``[0, 1)`` per row, float64.

    Returns:
        Ids of shape (R,).

    Precision: see ``find_share``. In Triton all sums are float64. Draws nearer to a boundary than
    the rounding of these sums may differ between forms.
    """
    return find_share(probs, uniform)
