"""The exact law of the sentences that a chain of a uniform family draws.

Shapes: U = W^L sequences, L positions, W words.
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from idlm_ds.kernels.projection import blocks
from idlm_ds.laboratory.chain import NETWORK_ROWS
from idlm_ds.laboratory.languages import Language
from idlm_ds.processes.base import Denoiser, at
from idlm_ds.processes.uniform import Uniform
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.tensor_types import TokenIds

MOST_SEQUENCES = 5_000


def is_small(language: Language) -> bool:
    """Tell whether a distribution over all sequences of words can be followed step by step."""
    return language.num_words**language.length <= MOST_SEQUENCES


@torch.no_grad()
def uniform_law(
    language: Language, process: Uniform, denoiser: Denoiser, steps: int
) -> Float64[Tensor, " S"]:
    """Compute the probability of every sentence under the ancestral chain.

    Raises:
        ValueError: The language has too many sequences.
    """
    if not is_small(language):
        raise ValueError(f"uniform_law: more than {MOST_SEQUENCES} sequences")
    words = torch.arange(language.num_words)
    states = torch.cartesian_prod(*[words] * language.length).view(-1, language.length)
    law = torch.full((len(states),), 1 / len(states), dtype=torch.float64)
    times = uniform_grid(steps)
    for t, s in zip(times[:-1], times[1:], strict=True):
        law = _step(process, denoiser, states, law, t, s)
    radix = language.num_words ** torch.arange(language.length - 1, -1, -1)
    return law[(language.sentences * radix).sum(1)]


def _step(
    process: Uniform,
    denoiser: Denoiser,
    states: TokenIds,
    law: Float64[Tensor, " U"],
    t: Tensor,
    s: Tensor,
) -> Float64[Tensor, " U"]:
    """Push a distribution over sequences through one step, whose words are independent."""
    half = states.shape[1] // 2
    total = torch.zeros(1, dtype=torch.float64)
    for block in blocks(len(states), NETWORK_ROWS):
        x_t = states[block]
        t_b, s_b = t.expand(len(x_t)), s.expand(len(x_t))
        positions = torch.arange(x_t.numel())
        raw = denoiser(x_t, process.schedule.at(t_b).sigma, at(positions)).double()
        rows = process.reverse(raw, x_t, t_b, s_b, positions).view(*x_t.shape, -1)
        first = _products(rows[:, :half]) * law[block, None]
        total = total + first.T @ _products(rows[:, half:])
    return total.flatten()


def _products(rows: Float64[Tensor, "B H W"]) -> Float64[Tensor, "B N"]:
    """Multiply out independent words: the probability of each of W^H sequences, in order."""
    law = torch.ones(len(rows), 1, dtype=torch.float64)
    for row in rows.unbind(1):
        law = (law[:, :, None] * row[:, None, :]).flatten(1)
    return law
