"""The vocabulary projection, applied only where a caller wants it.

Shapes: P selected positions of a flattened batch, D hidden width, V vocabulary entries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from idlm_ds.kernels.each import each_block
from idlm_ds.kernels.projection import project


class Projection(nn.Linear):
    """A linear layer whose weight other operators may use inside its forward pass.

    Only there does ZeRO-3 hold the whole weight.
    """

    def forward(
        self, h_PD: Tensor, operator: Callable[..., Tensor] | None = None, *inputs: Any
    ) -> Tensor:
        """Return ``h W^T + b`` (P, V), or what ``operator`` makes of ``h``, ``W`` and ``b``."""
        if operator is None:
            return super().forward(h_PD)
        return operator(h_PD, self.weight, self.bias, *inputs)


@final
@dataclass(frozen=True, slots=True)
class VocabularyHead:
    """Hidden states at the end of a forward pass, and their projection to scores."""

    hidden: Callable[[Tensor], Tensor]
    """Positions (P,) to the hidden states (P, D) that are projected."""

    projection: Projection

    def scores(self, positions: Tensor) -> Tensor:
        """Project some positions (P,) to scores (P, V), float32 whatever the weights are."""
        return self.fused(project, positions)

    def fused(self, operator: Callable[..., Tensor], positions: Tensor, *inputs: Any) -> Tensor:
        """Run ``operator(hidden, weight, bias, *inputs)`` inside the projection."""
        return self.projection(self.hidden(positions), operator, *inputs)

    @torch.no_grad()
    def each(self, use: Callable[..., Tensor], positions: Tensor, *rows: Tensor) -> Tensor:
        """Apply ``use`` to the scores of successive blocks of positions; see ``each_block``."""
        return self.fused(each_block, positions, use, *rows)
