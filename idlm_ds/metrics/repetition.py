"""Repetition within sequences, measured on token ids."""

import torch
from jaxtyping import Bool, Float64, Int, Int64
from torch import Tensor


def repeated_ngrams(tokens: Int[Tensor, "B L"], n: int = 4) -> Float64[Tensor, " B"]:
    """Compute the share of n-grams that occurred earlier in their sequence: 1 - distinct / all.

    "seq-rep-n" of arXiv:1908.04319v2.

    Raises:
        ValueError: ``n`` is not in 1..L.
    """
    return _seen_before(tokens, n).double().mean(dim=1)


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


def longest_run(tokens: Int[Tensor, "B L"]) -> Int64[Tensor, " B"]:
    """Return the length of the longest run of one token; 1 if no token follows itself."""
    place = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    changes = torch.ones(tokens.shape, dtype=torch.bool, device=tokens.device)
    changes[:, 1:] = tokens[:, 1:] != tokens[:, :-1]
    began = torch.where(changes, place, 0).cummax(dim=1).values
    return (place - began + 1).amax(dim=1)


def longest_repeat(tokens: Int[Tensor, "B L"]) -> Int64[Tensor, " B"]:
    """Return the length of the longest block that occurs twice in its sequence.

    Occurrences may overlap: a run of k equal tokens has a repeat of k - 1. Every part of a repeated
    block is repeated too, so the length is determined bit by bit, in O(B L log² L).
    """
    length = tokens.shape[1]
    place = torch.arange(length, device=tokens.device)
    # doubled[k] numbers the blocks of 2^k tokens by their start; equal numbers mean equal blocks.
    doubled = [_names(tokens, torch.zeros_like(tokens))]
    while 2 ** len(doubled) < length:
        half = torch.full((len(tokens),), 2 ** (len(doubled) - 1), device=tokens.device)
        doubled.append(_names(doubled[-1], _shifted(doubled[-1], half)))
    longest = torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
    block = torch.zeros_like(doubled[0])
    # Try to extend the longest repeat by 2^power tokens, for falling powers.
    for power in reversed(range(len(doubled))):
        longer = _names(block, _shifted(doubled[power], longest))
        fits = place <= length - (longest + 2**power)[:, None]
        grows = ((_first_places(longer) < place) & fits).any(dim=1)
        longest = torch.where(grows, longest + 2**power, longest)
        block = torch.where(grows[:, None], longer, block)
    return longest


def _seen_before(tokens: Int[Tensor, "B L"], n: int) -> Bool[Tensor, "B M"]:
    """Mark the starts of n-grams that occurred earlier in the same sequence."""
    length = tokens.shape[1]
    if not 1 <= n <= length:
        raise ValueError(f"repetition: n={n} is not in 1..{length}, the sequence length")
    names = tokens.long()
    for offset in range(1, n):
        names = _names(names[:, :-1], tokens[:, offset:])
    return _first_places(names) < torch.arange(names.shape[1], device=tokens.device)


def _names(first: Int[Tensor, "B M"], second: Int[Tensor, "B M"]) -> Int64[Tensor, "B M"]:
    """Assign equal numbers to equal pairs of values, each of them at least -1."""
    code = (first.long() + 1) * (second.max() + 2) + second + 1
    return torch.unique(code, return_inverse=True)[1]


def _shifted(names: Int64[Tensor, "B L"], by: Int64[Tensor, " B"]) -> Int64[Tensor, "B L"]:
    """Shift each row to the left, filling with -1."""
    length = names.shape[1]
    source = torch.arange(length, device=names.device) + by[:, None]
    return names.gather(1, source.clamp(max=length - 1)).masked_fill(source >= length, -1)


def _first_places(names: Int64[Tensor, "B M"]) -> Int64[Tensor, "B M"]:
    """Return for every entry the first position of its value in its row."""
    batch, width = names.shape
    rows = torch.arange(batch, device=names.device)[:, None]
    values, inverse = torch.unique(rows * (names.max() + 1) + names, return_inverse=True)
    place = torch.arange(width, device=names.device).expand(batch, width)
    first = torch.full((len(values),), width, device=names.device)
    first.scatter_reduce_(0, inverse.flatten(), place.flatten(), "amin")
    return first[inverse]
