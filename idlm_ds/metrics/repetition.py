"""Repetition within sequences, measured on token ids."""

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor


def repeated_tokens(tokens: Int[Tensor, "B L"], n: int = 4) -> Float64[Tensor, " B"]:
    """Compute the share of tokens inside an n-gram that occurred earlier in the sequence.

    The first occurrence does not count, so a text written twice gives one half.

    Raises:
        ValueError: ``n`` is not in 1..L.
    """
    starts = _seen_before(tokens, n)
    covered = torch.zeros(tokens.shape, dtype=torch.bool, device=tokens.device)
    width = starts.shape[1]
    for offset in range(n):
        covered[:, offset : offset + width] |= starts
    return covered.double().mean(dim=1)


def _seen_before(tokens: Int[Tensor, "B L"], n: int) -> Bool[Tensor, "B M"]:
    """Mark the starts of n-grams that occurred earlier in the same sequence."""
    length = tokens.shape[1]
    if not 1 <= n <= length:
        raise ValueError(f"repetition: n={n} is not in 1..{length}, the sequence length")
    # Number the n-grams: equal numbers mean equal n-grams.
    names = tokens.long()
    for offset in range(1, n):
        code = names[:, :-1] * (tokens.max() + 1) + tokens[:, offset:]
        names = torch.unique(code, return_inverse=True)[1]
    # Find the first place of each number in each row.
    batch, width = names.shape
    rows = torch.arange(batch, device=names.device)[:, None]
    values, inverse = torch.unique(rows * (names.max() + 1) + names, return_inverse=True)
    place = torch.arange(width, device=names.device).expand(batch, width)
    first = torch.full((len(values),), width, device=names.device)
    first.scatter_reduce_(0, inverse.flatten(), place.flatten(), "amin")
    return first[inverse] < place
