"""Scores that are only read, in blocks of rows.

Shapes: P rows in all, R rows of a block, D hidden width, V vocabulary entries.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from idlm_ds.kernels.projection import Hidden, ScoreRows, block_rows, blocks


@torch.no_grad()
def each_block(
    hidden: Hidden,
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    use: Callable[..., Tensor],
    *rows: Tensor,
) -> Tensor:
    """Concatenate ``use(scores, *rows)`` of successive blocks of rows.

    Without rows, ``use`` is called once, on an empty block.

    Args:
        hidden: Hidden states.
        weight: Of the projection.
        bias: Of the projection, or None.
        use: Gets the scores (R, V) of a block and may overwrite them. The next block has the same
            memory, so its result must not.
        rows: Tensors of P rows, of which ``use`` gets those of the block.

    Gradient: none. Precision: scores are float32 or wider.
    """
    scores = ScoreRows(hidden, weight, bias)
    buffer = scores.buffer()
    size = block_rows(len(weight), scores.device)
    pieces = list(blocks(len(hidden), size)) or [slice(0, 0)]
    results = [use(scores.scores(piece, buffer), *(row[piece] for row in rows)) for piece in pieces]
    return torch.cat(results)
