"""Diversity of samples, measured on token ids."""

import torch
from jaxtyping import Float64, Int
from torch import Tensor


def unigram_entropy(tokens: Int[Tensor, "B L"]) -> Float64[Tensor, " B"]:
    """Compute the entropy of each sequence's own token frequencies.

    Every position counts, special tokens included, so the maximum is ``log(L)`` and sequences of
    different lengths are not comparable. Report the mean over sequences.

    Units: nats. Precision: float64.

    Raises:
        ValueError: The sequences are empty.
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
    """Compute the share of distinct n-grams among all n-grams of the set.

    N-grams do not span two sequences. The share falls as a set grows, so compare only sets of the
    same number of sequences and length.

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


def distinct_pseudovalues(tokens: Int[Tensor, "B L"], n: int = 2) -> Float64[Tensor, " B"]:
    """Split ``distinct_ngrams`` into a value for each sequence.

    Their mean is the share of the set, and the standard error of that mean is the jackknife's: a
    sequence counts by its n-grams that no other has, which is what the set loses without it. On
    sets of 256 windows of real text that error is an eighth too large. (A set resampled with
    replacement has far fewer distinct n-grams, so a plain bootstrap is off by a factor of three.)

    Precision: float64. Sync: waits for the device.

    Raises:
        ValueError: See ``distinct_ngrams``.
    """
    share, batch = distinct_ngrams(tokens, n), len(tokens)
    grams = tokens.unfold(1, n, 1).reshape(-1, n)
    number = torch.unique(grams, dim=0, return_inverse=True)[1]
    per_sequence = len(grams) // batch
    row = torch.arange(batch, device=tokens.device).repeat_interleave(per_sequence)
    # Pairs of an n-gram and a sequence it occurs in; an n-gram with one pair has one owner.
    pairs = torch.unique(number * batch + row)
    number, row = pairs // batch, pairs % batch
    is_own = torch.bincount(number)[number] == 1
    own = torch.bincount(row[is_own], minlength=batch).double() / per_sequence
    return own - own.mean() + share
