"""The exact law of the sentences that a masked chain without a latent draws.

Shapes: S sentences, N = 2^L sets of positions, M = 3^L pairs of nested sets, L positions.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from idlm_ds.kernels.projection import blocks
from idlm_ds.laboratory.languages import Language
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Denoiser, at
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.tensor_types import TokenIds

NETWORK_ROWS = 2048
"""States a network is run on at a time."""

ENTRIES = 2**20
"""Numbers of an intermediate array."""


@dataclass(frozen=True, slots=True)
class Nested:
    """All pairs of a set of visible positions and a set that contains it."""

    members: Bool[Tensor, "N L"]
    """Whether a position is in a set."""

    before: Int[Tensor, " M"]
    after: Int[Tensor, " M"]

    @property
    def revealed(self) -> Bool[Tensor, "M L"]:
        """Positions of the larger set that are not in the smaller one."""
        return self.members[self.after] & ~self.members[self.before]

    def weight(self, reveal: float) -> Float64[Tensor, " M"]:
        """Compute the probability of the larger set after a step, given the smaller one.

        Args:
            reveal: Probability that a masked position is revealed in the step.
        """
        drawn = self.revealed.sum(1).double()
        left = (~self.members[self.after]).sum(1).double()
        return reveal**drawn * (1.0 - reveal) ** left


@cache
def nested_sets(length: int) -> Nested:
    """List the nested sets of some positions."""
    every = torch.arange(2**length)
    before, after = torch.cartesian_prod(every, every).unbind(1)
    is_nested = (before & after) == before
    members = (every[:, None] >> torch.arange(length)) & 1 == 1
    return Nested(members, before[is_nested], after[is_nested])


def reveal_probabilities(process: Absorbing, steps: int) -> list[float]:
    """Return the probability that a masked position is revealed, for each step of the sampler.

    The last entry is the sampler's step to time 0, which reveals what is left.
    """
    times = uniform_grid(steps)
    masked, left = process.schedule.at(times).masked, process.schedule.target(times).masked
    return [(1.0 - left[k + 1] / masked[k]).item() for k, _ in enumerate(pairwise(times))]


@dataclass(frozen=True, eq=False)
class PartlyMasked:
    """All states in which a true sentence can be while a chain draws it: U of them."""

    language: Language
    codes: Int[Tensor, " U"]
    """Of the states; increasing."""

    index: Int[Tensor, "S N"]
    """The state of a sentence of which a set of positions is visible."""

    @classmethod
    def of(cls, language: Language) -> "PartlyMasked":
        """List the states of a language."""
        members = nested_sets(language.length).members
        rows = torch.where(members, language.sentences[:, None], language.mask_id).flatten(0, 1)
        codes, index = _codes(language, rows).unique(return_inverse=True)
        return cls(language, codes, index.view(len(language.sentences), len(members)))

    @property
    def states(self) -> Int[Tensor, "U L"]:
        """The states as tokens."""
        return self.codes[:, None] // _radix(self.language) % self.language.vocab_size

    def counts(self, x_t: TokenIds) -> Float64[Tensor, " U"]:
        """Count how often each state occurs; others are left out."""
        codes = _codes(self.language, x_t)
        place = torch.searchsorted(self.codes, codes).clamp(max=len(self.codes) - 1)
        known = place[self.codes[place] == codes]
        return known.bincount(minlength=len(self.codes)).double()

    @torch.no_grad()
    def answers(self, process: Absorbing, denoiser: Denoiser) -> Float64[Tensor, "U L V"]:
        """Ask for the log-probabilities of all words at all masked positions.

        Entries at visible positions are zero. The denoiser must not depend on the time.

        Precision: that of the denoiser's scores.
        """
        tables = []
        states = self.states
        for block in blocks(len(states), NETWORK_ROWS):
            x_t = states[block]
            positions = process.undecided(x_t)
            raw = denoiser(x_t, torch.zeros(len(x_t), dtype=torch.float64), at(positions))
            table = torch.zeros(x_t.numel(), process.vocab_size, dtype=torch.float64)
            table[positions] = process.predict(raw).double()
            tables.append(table.view(*x_t.shape, -1))
        return torch.cat(tables)

    def true_words(self, table: Float64[Tensor, "U L V"]) -> Float64[Tensor, "S N L"]:
        """Look up the entry of the sentence's own word; zero where it is visible."""
        length = self.language.length
        words = self.language.sentences[:, None, :]
        log_probs = table[self.index[:, :, None], torch.arange(length), words]
        return log_probs.masked_fill(nested_sets(length).members, 0.0)


def _radix(language: Language) -> Int[Tensor, " L"]:
    return language.vocab_size ** torch.arange(language.length)


def _codes(language: Language, x_t: TokenIds) -> Int[Tensor, " B"]:
    return (x_t * _radix(language)).sum(1)


def chain_law(
    answers: Float64[Tensor, "S N L"], reveals: Sequence[Sequence[float]]
) -> Float64[Tensor, "K S"]:
    """Compute the probability of every sentence, for each of K chains.

    Which positions a step reveals does not depend on any word, so a sentence has come about by
    one of the growing families of sets: its probability is a sum over them, made step by step.

    Args:
        answers: Log-probability of each sentence's words, of ``PartlyMasked.true_words``.
        reveals: Of ``reveal_probabilities``, for each chain.
    """
    laws = [_laws(part, reveals) for part in in_parts(answers)]
    return torch.cat(laws, dim=1)


def in_parts(answers: Float64[Tensor, "S N L"]) -> Iterator[Float64[Tensor, "R N L"]]:
    """Split sentences into parts whose (R, M) arrays are small."""
    rows = max(1, ENTRIES // (3 ** answers.shape[2] * answers.shape[2]))
    return (answers[block] for block in blocks(len(answers), rows))


def _laws(answers: Float64[Tensor, "R N L"], reveals: Sequence[Sequence[float]]) -> Tensor:
    words = word_probs(answers)
    return torch.stack([forward(words, steps)[-1][:, -1] for steps in reveals])


def word_probs(answers: Float64[Tensor, "R N L"]) -> Float64[Tensor, "R M"]:
    """Multiply the probabilities of the words that appear between two nested sets."""
    sets = nested_sets(answers.shape[2])
    total = torch.zeros(len(answers), len(sets.before), dtype=torch.float64)
    for answer, revealed in zip(answers.unbind(2), sets.revealed.unbind(1), strict=True):
        total += answer[:, sets.before].masked_fill(~revealed, 0.0)
    return total.exp()


def forward(
    words: Float64[Tensor, "R M"], reveals: Sequence[float]
) -> list[Float64[Tensor, "R N"]]:
    """Return the probability of being on the way to a sentence, at each set, after each step."""
    sets = nested_sets(round(math.log(words.shape[1], 3)))
    reached = torch.zeros(len(words), len(sets.members), dtype=torch.float64)
    reached[:, 0] = 1.0
    every = [reached]
    for reveal in reveals:
        moved = reached[:, sets.before].mul_(words).mul_(sets.weight(reveal))
        reached = torch.zeros_like(reached).index_add_(1, sets.after, moved)
        every.append(reached)
    return every


def backward(
    words: Float64[Tensor, "R M"], reveals: Sequence[float]
) -> list[Float64[Tensor, "R N"]]:
    """Return the probability of ending in a sentence, from each set, before each step and after."""
    sets = nested_sets(round(math.log(words.shape[1], 3)))
    ahead = torch.zeros(len(words), len(sets.members), dtype=torch.float64)
    ahead[:, -1] = 1.0
    every = [ahead]
    for reveal in reversed(reveals):
        left = ahead[:, sets.after].mul_(words).mul_(sets.weight(reveal))
        ahead = torch.zeros_like(ahead).index_add_(1, sets.before, left)
        every.append(ahead)
    return every[::-1]
