"""Languages whose sentences can all be listed.

Shapes: S sentences, B sequences, L positions, V vocabulary entries with the mask, W = V - 1 words.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product

import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int
from torch import Generator, Tensor

from idlm_ds.laboratory.options import LanguageName
from idlm_ds.tensor_types import TokenIds


@dataclass(frozen=True, eq=False)
class Language:
    """All sentences of a language, with their probabilities.

    ``slip`` in its methods is the probability that a word was replaced by a random one (which may
    be itself) after the sentence was drawn. With a slip above 0 every sequence is possible, so
    that posteriors are defined, and finite, whatever a network has written.
    """

    num_words: int
    sentences: Int[Tensor, "S L"]
    probs: Float64[Tensor, " S"]
    """Positive, and sum to one."""

    @property
    def length(self) -> int:
        """Positions of a sentence."""
        return self.sentences.shape[1]

    @property
    def mask_id(self) -> int:
        """The id after the last word."""
        return self.num_words

    @property
    def vocab_size(self) -> int:
        """Words and the mask."""
        return self.num_words + 1

    @property
    def entropy(self) -> float:
        """Entropy of a sentence in nats."""
        return torch.special.entr(self.probs).sum().item()

    @cached_property
    def one_hot(self) -> Float64[Tensor, "S LW"]:
        """Indicators of the word at each position of each sentence."""
        return F.one_hot(self.sentences, self.num_words).double().flatten(1)

    def draw(self, count: int, *, generator: Generator) -> TokenIds:
        """Draw sentences."""
        drawn = torch.multinomial(self.probs, count, replacement=True, generator=generator)
        return self.sentences[drawn]

    def posterior(self, x_t: TokenIds, *, slip: float = 0.0) -> Float64[Tensor, "B L W"]:
        """Compute the distribution of the word at each position given the visible words.

        Rows at visible positions mean nothing.

        Raises:
            ValueError: Without slips, the visible words of a sequence are in no sentence.
        """
        is_visible = x_t != self.mask_id
        seen = F.one_hot(x_t, self.vocab_size)[..., :-1].double().flatten(1)
        matches = seen @ self.one_hot.T
        misses = is_visible.sum(1, keepdim=True) - matches
        right, wrong = 1 - slip + slip / self.num_words, slip / self.num_words
        log_weight = self.probs.log() + matches * math.log(right)
        if slip == 0:
            log_weight = log_weight.masked_fill(misses > 0.5, -math.inf)
            if bool(log_weight.isneginf().all(1).any()):
                raise ValueError("posterior: these visible words are in no sentence")
        else:
            log_weight = log_weight + misses * math.log(wrong)
        rows = (log_weight.softmax(1) @ self.one_hot).view(*x_t.shape, -1)
        return (1 - slip) * rows + slip / self.num_words

    def posterior_of_noised(
        self, x_t: TokenIds, alpha: Float64[Tensor, " B"], *, slip: float = 0.0
    ) -> Float64[Tensor, "B L W"]:
        """Compute the distribution of the clean word given the noised *other* positions.

        The other words have survived with probability ``alpha``, below 1, and are random else:
        what the scores of uniform families stand for.
        """
        kept = (alpha * (1 - slip))[:, None, None]
        wrong = (1 - kept) / self.num_words
        is_match = (x_t[:, None] == self.sentences).double()
        evidence = torch.log(wrong + kept * is_match)
        total = evidence.sum(2, keepdim=True) + self.probs.log()[:, None]
        weight = (total - evidence).softmax(1)
        hot = self.one_hot.view(len(self.sentences), self.length, -1)
        rows = torch.einsum("bsl,slw->blw", weight, hot)
        return (1 - slip) * rows + slip / self.num_words


@dataclass(frozen=True, eq=False)
class Pairs(Language):
    """Independent pairs of equal words; a posterior needs a look at the other word only."""

    def posterior(self, x_t: TokenIds, *, slip: float = 0.0) -> Float64[Tensor, "B L W"]:
        """See base class; without slips the other pairs need not be possible."""
        other = x_t.roll(self.length // 2, dims=1)
        slips = (1 - slip) * torch.eye(self.num_words, dtype=torch.float64)
        slips += slip / self.num_words
        # A masked partner says nothing.
        nothing = torch.full((1, self.num_words), 1 / self.num_words, dtype=torch.float64)
        return torch.cat([slips @ slips, nothing])[other]


def alike(num_words: int, sentences: Tensor) -> Language:
    """Make all sentences equally likely."""
    count = len(sentences)
    return Language(num_words, sentences, torch.full((count,), 1 / count, dtype=torch.float64))


def pairs(num_pairs: int = 4, num_words: int = 8) -> Pairs:
    """Make independent pairs of equal random words, half a sentence apart: ``3 0 5 3 3 0 5 3``."""
    words = torch.cartesian_prod(*[torch.arange(num_words)] * num_pairs).view(-1, num_pairs)
    count = len(words)
    uniform = torch.full((count,), 1 / count, dtype=torch.float64)
    return Pairs(num_words, words.repeat(1, 2), uniform)


def copy(num_words: int = 8, length: int = 4) -> Language:
    """Make one random word, repeated."""
    return alike(num_words, torch.arange(num_words)[:, None].repeat(1, length))


def shuffle(num_words: int = 5) -> Language:
    """Make all words in random order."""
    return alike(num_words, torch.tensor(list(permutations(range(num_words)))))


def latin(order: int = 3) -> Language:
    """Make Latin squares, row by row: no word twice in a row or a column."""
    rows = list(permutations(range(order)))
    squares = [
        sum(square, start=())
        for square in product(rows, repeat=order)
        if all(len(set(column)) == order for column in zip(*square, strict=True))
    ]
    return alike(order, torch.tensor(squares))


def markov(num_words: int = 4, length: int = 5) -> Language:
    """Make a stationary Markov chain with every transition possible."""
    generator = Generator().manual_seed(0)
    scores = 2 * torch.randn(num_words, num_words, generator=generator, dtype=torch.float64)
    step = scores.softmax(1)
    start = torch.linalg.matrix_power(step, 1000)[0]
    sentences = torch.cartesian_prod(*[torch.arange(num_words)] * length)
    log_probs = start.log()[sentences[:, 0]]
    log_probs = log_probs + step.log()[sentences[:, :-1], sentences[:, 1:]].sum(1)
    return Language(num_words, sentences, log_probs.exp())


LANGUAGES: dict[LanguageName, Callable[[], Language]] = {
    "pairs": pairs,
    "copy": copy,
    "shuffle": shuffle,
    "latin": latin,
    "markov": markov,
}
