"""How likely a masked model finds a text that stands among others: a bound, by Monte Carlo.

With n open tokens y and everything else c, for any order in which tokens are revealed

    log p(y | c)  >=  E over k, S of  n / k  sum over i in S of  log p(y_i | c, y outside of S)

where k is uniform on 1..n and S is one of the sets of k open tokens, all equally likely: the
estimator that LLaDA is measured with (arXiv:2502.09992). The right side is the mean over all
orders of the log-probability of revealing y in that order, so it is an equality for a network whose
answers all belong to one distribution.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Denoiser, at
from idlm_ds.tensor_types import Logits, Positions, TokenIds


@dataclass(frozen=True, slots=True)
class Bound:
    """A lower bound of log p, and how well it is known."""

    nats: float
    se: float
    """Standard error, as if draws were independent (strata make it smaller); 0 where exact."""

    evaluations: int
    """How many sequences the network was run on."""


@torch.no_grad()
def continuation_bound(
    process: Absorbing,
    denoiser: Denoiser,
    row: Int[Tensor, " L"],
    asked: Int[Tensor, " N"],
    *,
    draws: int,
    noise: Noise,
    batch: int,
) -> Bound:
    """Estimate the bound on ``log p(row[asked] | row elsewhere)``.

    Args:
        process: A masked family.
        denoiser: The network; one that is shown the time sees that at which as many are masked.
        row: The sequence; positions that hold the mask are unknown and stay so.
        asked: The open tokens.
        draws: How many sets S. Their sizes are stratified: one in each of as many parts of 1..n.
            Where there are no more, the mean is over all of them, and exact.
        noise: One stream.
        batch: Sequences at a time.

    Units: nats. Precision: float64.
    """
    is_masked, weight = _sets(len(asked), draws, noise)
    values = torch.zeros(len(weight), dtype=torch.float64, device=row.device)
    for first in range(0, len(weight), batch):
        part = slice(first, first + batch)
        which, place = is_masked[part].nonzero(as_tuple=True)
        x = row.expand(len(is_masked[part]), -1).clone()
        x[which, asked[place]] = process.mask_id
        positions = which * len(row) + asked[place]
        log_probs = process.predict(_ask(process, denoiser, x, positions))
        picked = log_probs.gather(1, row[asked[place]][:, None])[:, 0]
        values[part].index_add_(0, which, picked)
    values *= len(asked) / is_masked.double().sum(1)
    se = 0.0 if _has_few_sets(len(asked), draws) else values.std().item() / draws**0.5
    return Bound((weight @ values).item(), se, len(weight))


def _has_few_sets(count: int, draws: int) -> bool:
    return 2**count - 1 <= draws


def _sets(
    count: int, draws: int, noise: Noise
) -> tuple[Bool[Tensor, "M N"], Float64[Tensor, " M"]]:
    """Sets of open tokens and their weights: all there are, or as many as draws."""
    if _has_few_sets(count, draws):
        code = torch.arange(1, 2**count, device=noise.device)
        is_masked = (code[:, None] >> torch.arange(count, device=noise.device)) % 2 == 1
        ways = [1 / (count * math.comb(count, k)) for k in range(1, count + 1)]
        each = torch.tensor(ways, dtype=torch.float64, device=noise.device)
        return is_masked, each[is_masked.sum(1) - 1]
    strata = (torch.arange(draws, device=noise.device) + noise.uniform(draws)[0]) / draws
    size = (strata * count).long().clamp(max=count - 1) + 1
    is_masked = noise.uniform(draws, count)[0].argsort(-1).argsort(-1) < size[:, None]
    return is_masked, torch.full_like(strata, 1 / draws)


@torch.no_grad()
def is_greedy(
    process: Absorbing,
    denoiser: Denoiser,
    row: Int[Tensor, " L"],
    asked: Int[Tensor, " N"],
) -> tuple[bool, int]:
    """Whether the open tokens are what revealing the surest one first, one a step, would write.

    Returns:
        Whether they are, and how often the network was run; it ends at the first other token.
    """
    x = row.clone()
    x[asked] = process.mask_id
    for step in range(len(asked)):
        hidden = asked[x[asked] == process.mask_id]
        log_probs = process.predict(_ask(process, denoiser, x[None], hidden))
        certainty, words = log_probs.max(-1)
        surest = hidden[certainty.argmax()]
        x[surest] = words[certainty.argmax()]
        if x[surest] != row[surest]:
            return False, step + 1
    return True, len(asked)


def _ask(process: Absorbing, denoiser: Denoiser, x: TokenIds, positions: Positions) -> Logits:
    return denoiser(x, process.sigma_of(x), at(positions)).double()
