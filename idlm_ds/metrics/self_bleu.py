"""How alike the sequences of a set are: BLEU of each against all others."""

import torch
from jaxtyping import Float64, Int, Int64
from torch import Generator, Tensor

from idlm_ds.noise import derive_seed

ALMOST_NONE = 0.1
"""Matches counted where there are none, so that one empty order does not hide the others."""


def self_bleu(
    tokens: Int[Tensor, "B L"], *, order: int = 4, limit: int = 1000, seed: int = 0
) -> Float64[Tensor, " N"]:
    """BLEU of each sequence with all others of the set as its references, in token ids.

    arXiv:1802.01886v1, with the geometric mean of clipped precisions up to ``order``-grams.
    Lengths are equal, so the brevity penalty is 1. Higher is less varied; the value also grows
    with the set, so compare sets of one size and length. Values share their references: a standard
    error over them ignores that.

    Args:
        tokens: The set.
        order: Longest n-grams.
        limit: Sequences taken from a larger set, chosen by ``seed``.
        seed: Names the choice.

    Precision: float64.

    Raises:
        ValueError: There are fewer than two sequences, or they are shorter than ``order``.
    """
    batch, length = tokens.shape
    if batch < 2 or length < order:
        raise ValueError(f"self_bleu: {batch} sequences of {length}; allowed: 2 or more of {order}")
    if batch > limit:
        generator = Generator().manual_seed(derive_seed(seed, "self_bleu"))
        chosen = torch.randperm(batch, generator=generator)[:limit].sort().values
        tokens = tokens[chosen.to(tokens.device)]
    logs = []
    names = torch.zeros_like(tokens, dtype=torch.int64)
    for n in range(1, order + 1):
        last = tokens[:, n - 1 :]
        code = names[:, : last.shape[1]] * (tokens.max() + 1) + last
        names = torch.unique(code, return_inverse=True)[1]
        matches = _clipped_matches(names).clamp(min=ALMOST_NONE)
        logs.append((matches / last.shape[1]).log())
    return torch.stack(logs).mean(dim=0).exp()


def _clipped_matches(names: Int64[Tensor, "B M"]) -> Float64[Tensor, " B"]:
    """Count each row's values, each at most as often as the one other row richest in it has it.

    The two largest counts of a value decide that for every row, so no pair of rows is compared.
    """
    batch = len(names)
    kinds = int(names.max()) + 1
    rows = torch.arange(batch, device=names.device)[:, None]
    cells, counts = torch.unique(rows * kinds + names, return_counts=True)
    row, kind = cells // kinds, cells % kinds
    # Cells of one value side by side, the largest count first.
    order = torch.argsort(kind * (int(counts.max()) + 1) - counts)
    row, kind, counts = row[order], kind[order], counts[order]
    is_first = torch.ones_like(kind, dtype=torch.bool)
    is_first[1:] = kind[1:] != kind[:-1]
    is_second = torch.zeros_like(is_first)
    is_second[1:] = is_first[:-1] & ~is_first[1:]
    largest, second = counts.new_zeros(kinds), counts.new_zeros(kinds)
    largest[kind[is_first]] = counts[is_first]
    second[kind[is_second]] = counts[is_second]
    elsewhere = torch.where(is_first, second[kind], largest[kind])
    matches = torch.zeros(batch, dtype=torch.float64, device=names.device)
    return matches.index_add_(0, row, torch.minimum(counts, elsewhere).double())
