"""The vocabulary projection, applied only where a caller wants it.

Shapes: P selected positions of a flattened batch, R of them in a block, D hidden width, V
vocabulary entries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from idlm_ds.kernels.projection import ScoreRows, block_rows, blocks, project


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


def each_block(
    h_PD: Tensor, w_VD: Tensor, b_V: Tensor | None, use: Callable[..., Tensor], *rows: Tensor
) -> Tensor:
    """Concatenate ``use(scores, *rows)`` of successive blocks of rows.

    Without rows, ``use`` is called once, on an empty block.

    Args:
        h_PD: Hidden states.
        w_VD: Weight of the projection.
        b_V: Its bias, or None.
        use: Gets the float32 scores (R, V) of a block and may overwrite them. The next block has
            the same memory, so its result must not.
        rows: Tensors of P rows, of which ``use`` gets those of the block.

    Gradient: none.
    """
    scores = ScoreRows(h_PD, w_VD, b_V)
    buffer = scores.buffer()
    size = block_rows(len(w_VD), scores.device)
    pieces = list(blocks(len(h_PD), size)) or [slice(0, 0)]
    results = [use(scores.scores(piece, buffer), *(row[piece] for row in rows)) for piece in pieces]
    return results[0] if len(results) == 1 else torch.cat(results)
