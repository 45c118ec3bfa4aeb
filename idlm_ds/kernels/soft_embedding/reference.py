"""Mean of the rows of a table under the softmax of scores.

Shapes: P positions, V vocabulary entries, D hidden width.
"""

import torch
from torch import Tensor

from idlm_ds.tensor_types import Logits


def soft_embedding(scores: Logits, table: Tensor) -> Tensor:
    """Compute ``softmax(scores) table``.

    Args:
        scores: Unnormalised (P, V).
        table: Embeddings (V, D).

    Returns:
        Rows (P, D) in the dtype of the table.

    Gradient: reaches both arguments. Precision: float32 or wider, rounded once at the end.
    """
    wide = torch.promote_types(scores.dtype, torch.promote_types(table.dtype, torch.float32))
    return (scores.to(wide).softmax(-1) @ table.to(wide)).to(table.dtype)
