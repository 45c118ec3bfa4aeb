"""Scores that are only read, in blocks of rows.

Shapes: P rows in all, R rows of a block, D hidden width, V vocabulary entries.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from idlm_ds.kernels.projection import Hidden, ScoreRows, block_rows, blocks

CPU_ROWS = 8
"""On a CPU, a product of 70 rows takes half as long again as one of 72."""


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
    count, size = len(hidden), block_rows(len(weight), hidden.device)
    if hidden.device.type == "cpu":
        hidden = F.pad(hidden, (0, 0, 0, -count % CPU_ROWS))
    scores = ScoreRows(hidden, weight, bias)
    buffer = scores.buffer()
    results = []
    for piece in list(blocks(count, size)) or [slice(0, 0)]:
        # The last block has the rows that fill it up, which ``use`` does not see.
        stop = min(piece.start + size, len(hidden)) if count else 0
        raw = scores.scores(slice(piece.start, stop), buffer)[: piece.stop - piece.start]
        results.append(use(raw, *(row[piece] for row in rows)))
    return torch.cat(results)
