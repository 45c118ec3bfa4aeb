"""Launches of Triton kernels, which can also be collected instead of carried out.

Does not import Triton. Collected launches are what ``ahead.py`` compiles without a GPU.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TILE = 1024
"""Most vocabulary entries that a program holds of one row at a time."""

_collected: "list[Launch] | None" = None


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel with everything it is launched with."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    settings: Mapping[str, Any]
    """Compile-time arguments, ``num_warps`` and ``num_stages``."""

    @property
    def name(self) -> str:
        """The kernel's name without the mark of a private one."""
        return str(self.kernel.__name__).lstrip("_")


@contextmanager
def collecting() -> Iterator[list[Launch]]:
    """Collect launches instead of carrying them out; what they would write stays as it is."""
    global _collected
    collected: list[Launch] = []
    _collected = collected
    try:
        yield collected
    finally:
        _collected = None


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **settings: Any) -> None:
    """Launch a kernel on the device of its first tensor; a grid without programs is no launch."""
    if 0 in grid:
        return
    if _collected is not None:
        _collected.append(Launch(kernel, grid, arguments, settings))
        return
    first = next(argument for argument in arguments if isinstance(argument, Tensor))
    with torch.cuda.device_of(first):
        kernel[grid](*arguments, **settings)


def launch_rows(
    kernel: Any,
    scores: Sequence[Tensor],
    per_row: Sequence[Tensor],
    *scalars: int,
    dtype: torch.dtype,
    **settings: Any,
) -> Tensor:
    """Launch a program for each row of score blocks (R, V), which writes a number per row.

    The kernel's arguments are the scores, ``per_row``, the numbers, the strides of each block
    of scores, V, ``scalars``, and the tile as ``BLOCK`` beside ``settings``.

    Returns:
        The numbers (R,), of ``dtype``.
    """
    rows, width = scores[0].shape
    numbers = torch.empty(rows, dtype=dtype, device=scores[0].device)
    strides = [stride for block in scores for stride in block.stride()]
    launch(
        kernel,
        (rows,),
        *(*scores, *(values.contiguous() for values in per_row), numbers),
        *(*strides, width, *scalars),
        BLOCK=tile(width),
        num_warps=4,
        **settings,
    )
    return numbers


def power_of_two(count: int) -> int:
    """Return the least power of two that is not below ``count``."""
    return 1 << (count - 1).bit_length()


def tile(width: int) -> int:
    """Return how many entries of a row of ``width`` a program holds at a time."""
    return min(TILE, power_of_two(width))
