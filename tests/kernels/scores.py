"""Scores to try operators of rows on, and how close their results must be."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from .guarded import LAYOUTS

SHAPES = [(1, 5), (3, 32), (2, 33), (4, 71)]
"""Rows and entries: below a tile, one tile, one more entry, several tiles and a rest."""

KINDS = ("usual", "extreme", "equal", "certain")

CLOSE = {torch.float64: 1e-11, torch.float32: 2e-5}
"""Relative to the largest entry."""


def cases() -> Iterator[tuple[tuple[int, int], str]]:
    """Yield shapes, each in one of the layouts."""
    return zip(SHAPES, (*LAYOUTS, "rows"), strict=True)


def scores(kind: str, shape: tuple[int, int], generator: Generator) -> Tensor:
    """Draw float64 scores that float32 holds exactly."""
    normal = torch.randn(shape, generator=generator)
    match kind:
        case "usual":
            values = 3 * normal
        case "extreme":
            values = 80 * normal.sign()
        case "equal":
            values = torch.full(shape, 2.5)
        case _:
            # One word has all the probability.
            values = torch.where(normal == normal.amax(1, keepdim=True), 80.0, -80.0)
    return values.double()


def related_scores(kind: str, shape: tuple[int, int], generator: Generator) -> list[Tensor]:
    """Draw scores of student, teacher and fake, the last two alike."""
    student, teacher = (scores(kind, shape, generator) for _ in range(2))
    fake = (teacher + 0.3 * torch.randn(shape, generator=generator)).float().double()
    return [student, teacher, fake]


def assert_near(got: Tensor, expected: Tensor, dtype: torch.dtype, scale: Tensor) -> None:
    """Compare at the tolerance of a precision.

    Args:
        got: What was computed.
        expected: What is right, float64.
        dtype: The precision of the scores.
        scale: Magnitude of each row (R,), that of what was subtracted on the way included.
    """
    error = (got - expected).abs().view(len(scale), -1).amax(1)
    assert (error <= CLOSE[dtype] * scale).all(), (error / scale, dtype)


def sizes(rows: Tensor) -> Tensor:
    """Return the magnitude of each row."""
    return rows.abs().view(len(rows), -1).amax(1)


def slope_of(nats: Callable[..., Tensor], learned: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    """Differentiate a sum of losses by its first argument."""
    learned = learned.clone().requires_grad_()
    value = nats(learned, *others)
    (slope,) = torch.autograd.grad(value.sum(), learned)
    return value.detach(), slope
