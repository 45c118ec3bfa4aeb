"""How varied a set of samples is, measured on token ids alone."""

import torch
from jaxtyping import Float64, Int
from torch import Tensor


def unigram_entropy(tokens: Int[Tensor, "B L"]) -> Float64[Tensor, " B"]:
    """Entropy of each sequence's own token frequencies.

    Every position counts, special tokens included, so the largest value is ``log(L)`` and
    sequences of different lengths do not compare. Average it over sequences to report it.

    Units: nats. Precision: float64.

    Raises:
        ValueError: the sequences are empty.
    """
    length = tokens.shape[1]
    if length == 0:
        raise ValueError("unigram_entropy: sequences of length 0 have no entropy")
    ordered = tokens.sort(dim=1).values
    # After sorting, equal ids are neighbours: number the runs and count their members.
    run = torch.zeros_like(ordered, dtype=torch.int64)
    run[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).cumsum(dim=1)
    counts = torch.zeros(ordered.shape, dtype=torch.float64, device=tokens.device)
    counts.scatter_add_(1, run, torch.ones_like(counts))
    return torch.special.entr(counts / length).sum(dim=1)


def distinct_ngrams(tokens: Int[Tensor, "B L"], n: int = 2) -> float:
    """Share of n-grams that are different, over the whole set together.

    N-grams never cross from one sequence into the next. The share falls as more text is
    added, whatever wrote it: compare only sets of the same number of sequences and length.

    Sync: waits for the device.

    Raises:
        ValueError: ``n`` is not in 1..L, or there are no sequences.
    """
    batch, length = tokens.shape
    if not 1 <= n <= length:
        raise ValueError(f"distinct_ngrams: n={n} is not in 1..{length}, the sequence length")
    if batch == 0:
        raise ValueError("distinct_ngrams: no sequences")
    grams = tokens.unfold(1, n, 1).reshape(-1, n)
    return torch.unique(grams, dim=0).shape[0] / grams.shape[0]
