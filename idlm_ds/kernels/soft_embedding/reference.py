"""Mean of a few rows of a table under the softmax of their scores.

Shapes: P positions, N entries of all of them, V vocabulary entries, D hidden width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def soft_embedding(
    table: Float[Tensor, "V D"],
    ids: Int[Tensor, " N"],
    scores: Float[Tensor, " N"],
    counts: Int[Tensor, " P"],
) -> Float[Tensor, "P D"]:
    """Average rows of a table over the entries of each position.

    Args:
        table: The embeddings.
        ids: Row of each entry; entries of a position follow each other.
        scores: Unnormalised log of the share of each entry.
        counts: Entries of each position.

    Returns:
        Means in the dtype of the table.

    Gradient: reaches ``table`` and ``scores``. Precision: softmax and mean in float32 or wider,
    rounded once at the end.
    """
    wide = scores.to(torch.promote_types(table.dtype, torch.float32))
    every = torch.arange(len(counts), device=counts.device)
    position = every.repeat_interleave(counts, output_size=len(ids))
    top = torch.segment_reduce(wide.detach(), "max", lengths=counts, unsafe=True)
    weights = (wide - top[position]).exp()
    total = torch.segment_reduce(weights, "sum", lengths=counts, unsafe=True)
    shares = (weights / total[position])[:, None] * F.embedding(ids, table)
    mean = torch.segment_reduce(shares, "sum", lengths=counts, unsafe=True, axis=0)
    return mean.to(table.dtype)
