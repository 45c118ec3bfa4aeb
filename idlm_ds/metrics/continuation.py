"""Monte Carlo bound on the likelihood of a text in context under a masked model.

With n open tokens y and everything else c, for any order in which tokens are revealed

    log p(y | c)  >=  E over k, S of  n / k  sum over i in S of  log p(y_i | c, y outside of S)

where k is uniform on 1..n and S is a uniformly drawn set of k open tokens: the estimator used for
LLaDA (arXiv:2502.09992). The right side is the mean over all orders of the log-probability of
revealing y in that order, so it is an equality for a network whose answers are the conditionals of
one distribution.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from idlm_ds.kernels.long_rows import Softmax
from idlm_ds.noise import Noise
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Denoiser, each
from idlm_ds.tensor_types import Logits, Positions


@dataclass(frozen=True, slots=True)
class Bound:
    """A lower bound of log p with its standard error."""

    nats: float
    se: float
    """Standard error for independent draws, too large for stratified ones; 0 where exact."""

    evaluations: int
    """Number of sequences on which the network was run."""


@torch.no_grad()
def continuation_bound(
    process: Absorbing,
    denoiser: Denoiser,
    row: Int[Tensor, " L"],
    open_positions: Int[Tensor, " N"],
    *,
    draws: int,
    noise: Noise,
    batch: int,
) -> Bound:
    """Estimate the bound on ``log p(row[open_positions] | the rest)``.

    Args:
        process: A masked family.
        denoiser: The network; a time-conditioned one receives the time at which as many tokens
            are masked on average.
        row: The sequence; positions that hold the mask are unknown and stay masked.
        open_positions: Positions of the open tokens.
        draws: Number of sets S, with sizes stratified over 1..n. If there are no more than that,
            the mean is over all sets, and exact.
        noise: One stream.
        batch: Sequences per call of the network.

    Units: nats. Precision: see ``Softmax``.
    """
    # Every row of is_masked is a set S; its open tokens are masked and predicted together.
    is_masked, weight = _sets(len(open_positions), draws, noise)
    values = torch.zeros(len(weight), dtype=torch.float64, device=row.device)
    for first in range(0, len(weight), batch):
        part = slice(first, first + batch)
        sample, index = is_masked[part].nonzero(as_tuple=True)
        x = row.expand(len(is_masked[part]), -1).clone()
        x[sample, open_positions[index]] = process.mask_id
        positions = sample * len(row) + open_positions[index]

        def pick(raw: Logits, tokens: Positions) -> Float64[Tensor, " P"]:
            return Softmax.of(process.clean_scores_(raw)).log_probs_at(tokens)

        tokens = row[open_positions[index]]
        picked = denoiser(x, process.sigma_of(x), each(pick, positions, tokens))
        values[part].index_add_(0, sample, picked)
    values *= len(open_positions) / is_masked.double().sum(1)
    se = 0.0 if _has_few_sets(len(open_positions), draws) else values.std().item() / draws**0.5
    return Bound((weight @ values).item(), se, len(weight))


def _has_few_sets(count: int, draws: int) -> bool:
    return 2**count - 1 <= draws


def _sets(
    count: int, draws: int, noise: Noise
) -> tuple[Bool[Tensor, "M N"], Float64[Tensor, " M"]]:
    """Return sets of open tokens and their weights: all sets, or ``draws`` random ones."""
    if _has_few_sets(count, draws):
        code = torch.arange(1, 2**count, device=noise.device)
        is_masked = (code[:, None] >> torch.arange(count, device=noise.device)) % 2 == 1
        # A set of k tokens has weight 1 / n for its size times 1 / C(n, k) within it.
        set_weights = [1 / (count * math.comb(count, k)) for k in range(1, count + 1)]
        weight_of_size = torch.tensor(set_weights, dtype=torch.float64, device=noise.device)
        return is_masked, weight_of_size[is_masked.sum(1) - 1]
    strata = (torch.arange(draws, device=noise.device) + noise.uniform(draws)[0]) / draws
    size = (strata * count).long().clamp(max=count - 1) + 1
    # Ranks of random numbers below the size: a uniform set of that size.
    is_masked = noise.uniform(draws, count)[0].argsort(-1).argsort(-1) < size[:, None]
    return is_masked, torch.full_like(strata, 1 / draws)


@torch.no_grad()
def is_greedy(
    process: Absorbing,
    denoiser: Denoiser,
    row: Int[Tensor, " L"],
    open_positions: Int[Tensor, " N"],
) -> tuple[bool, int]:
    """Tell whether greedy decoding, most certain token first, reproduces the open tokens.

    Returns:
        The answer, and the number of network calls; decoding stops at the first other token.
    """
    x = row.clone()
    x[open_positions] = process.mask_id
    for step in range(len(open_positions)):
        hidden = open_positions[x[open_positions] == process.mask_id]

        def choose(raw: Logits) -> Float64[Tensor, "P 2"]:
            answer = Softmax.of(process.clean_scores_(raw))
            tokens = answer.best()
            return torch.stack([tokens.double(), answer.log_probs_at(tokens)], 1)

        read, sigma = each(choose, hidden), process.sigma_of(x[None])
        tokens, certainty = denoiser(x[None], sigma, read).unbind(1)
        surest = hidden[certainty.argmax()]
        x[surest] = tokens[certainty.argmax()].long()
        if x[surest] != row[surest]:
            return False, step + 1
    return True, len(open_positions)
