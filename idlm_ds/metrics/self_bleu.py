"""Self-BLEU: similarity of the sequences of a set."""

import torch
from jaxtyping import Float64, Int, Int64
from torch import Generator, Tensor

from idlm_ds.noise import derive_seed

MIN_MATCHES = 0.1
"""Number of matches assumed where there are none, so that one order does not hide the others."""


def self_bleu(
    tokens: Int[Tensor, "B L"], *, order: int = 4, limit: int = 1000, seed: int = 0
) -> Float64[Tensor, " N"]:
    """Compute the BLEU of each sequence with all others as references, on token ids.

    arXiv:1802.01886v1, with the geometric mean of clipped precisions up to ``order``-grams.
    Lengths are equal, so the brevity penalty is 1. Higher means less diverse. The value grows with
    the set, so compare sets of equal size and length. Values share their references, which a
    standard error over them ignores. Of a larger set, ``limit`` sequences are drawn by ``seed``.

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
    # Number the n-grams of each order from those of the order below and one more token.
    logs = []
    names = torch.zeros_like(tokens, dtype=torch.int64)
    for n in range(1, order + 1):
        last = tokens[:, n - 1 :]
        code = names[:, : last.shape[1]] * (tokens.max() + 1) + last
        names = torch.unique(code, return_inverse=True)[1]
        matches = _clipped_matches(names).clamp(min=MIN_MATCHES)
        logs.append((matches / last.shape[1]).log())
    return torch.stack(logs).mean(dim=0).exp()


def _clipped_matches(names: Int64[Tensor, "B M"]) -> Float64[Tensor, " B"]:
    """Count the values of each row, each at most as often as it occurs in any one other row.

    The two largest counts of a value decide that for every row, so no pairs are compared.
    """
    batch = len(names)
    kinds = int(names.max()) + 1
    rows = torch.arange(batch, device=names.device)[:, None]
    cells, counts = torch.unique(rows * kinds + names, return_counts=True)
    row, kind = cells // kinds, cells % kinds
    # Sort (row, value) cells by value, the largest count first.
    order = torch.argsort(kind * (int(counts.max()) + 1) - counts)
    row, kind, counts = row[order], kind[order], counts[order]
    # The largest and the second largest count of each value.
    is_first = torch.ones_like(kind, dtype=torch.bool)
    is_first[1:] = kind[1:] != kind[:-1]
    is_second = torch.zeros_like(is_first)
    is_second[1:] = is_first[:-1] & ~is_first[1:]
    largest, second = counts.new_zeros(kinds), counts.new_zeros(kinds)
    largest[kind[is_first]] = counts[is_first]
    second[kind[is_second]] = counts[is_second]
    # The largest count in another row is the second one for the row that has the largest.
    elsewhere = torch.where(is_first, second[kind], largest[kind])
    matches = torch.zeros(batch, dtype=torch.float64, device=names.device)
    return matches.index_add_(0, row, torch.minimum(counts, elsewhere).double())
