"""Arrays inside larger ones that are filled with NaN, so that no read or write may stray."""

from dataclasses import dataclass

import torch
from torch import Tensor

LAYOUTS = ("rows", "columns", "padded")
MARGIN = 64


@dataclass(frozen=True)
class Guarded:
    """An array, and the memory around it."""

    view: Tensor
    memory: Tensor

    @classmethod
    def of(cls, values: Tensor, layout: str = "rows") -> "Guarded":
        """Copy values: rows contiguous, columns contiguous, or rows with gaps between them."""
        rows, width = values.shape
        strides = {"rows": (width, 1), "columns": (1, rows), "padded": (width + 3, 1)}[layout]
        size = rows * (width + 3) + 2 * MARGIN
        memory = torch.full((size,), torch.nan, dtype=values.dtype)
        view = memory.as_strided((rows, width), strides, MARGIN)
        view.copy_(values)
        return cls(view, memory)

    def is_intact(self) -> bool:
        """Whether the memory around the array is as it was."""
        inside = torch.zeros_like(self.memory, dtype=torch.bool)
        inside.as_strided(self.view.shape, self.view.stride(), MARGIN).fill_(True)
        return bool(self.memory[~inside].isnan().all())
