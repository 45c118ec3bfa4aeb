"""What words that are drawn together, each by itself, must cost: the README derives it.

Shapes: N = 2^L sets of positions, L positions.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from idlm_ds.laboratory.chain import nested_sets
from idlm_ds.laboratory.languages import Language


def set_entropies(language: Language) -> Float64[Tensor, " N"]:
    """Compute the entropy of the words at every set of positions, in nats."""
    radix = language.vocab_size ** torch.arange(language.length)
    entropies = []
    for members in nested_sets(language.length).members:
        codes = torch.where(members, language.sentences, language.mask_id) * radix
        kinds, inverse = codes.sum(1).unique(return_inverse=True)
        probs = torch.zeros(len(kinds), dtype=torch.float64).index_add(0, inverse, language.probs)
        entropies.append(torch.special.entr(probs).sum())
    return torch.stack(entropies)


def total_correlation(language: Language) -> float:
    """Compute the least divergence of the language from independent words, in nats."""
    sets = nested_sets(language.length)
    entropy = set_entropies(language)
    alone = sets.members.sum(1) == 1
    return (entropy[alone].sum() - entropy[-1]).item()


def ordered_bound(language: Language, reveals: Sequence[float]) -> float:
    """Compute the mean total correlation of the words that steps reveal together, summed.

    This is the least value of ``E_order KL(truth | law given the order)`` in nats, over all
    chains whose every step (a) picks the positions to reveal by the schedule, each by itself and
    blind to the words, and (b) draws the words there independently given the visible ones. Any
    network without a latent makes such a chain. Exact posteriors attain it. In one step there is
    one order, and it bounds ``KL(truth | law)`` itself. In more steps the law of sentences is the
    mean over orders, so its divergence is at most the mean divergence, and may be smaller than
    this number; see ``best``.

    Args:
        language: The truth.
        reveals: Of ``reveal_probabilities``.
    """
    sets, entropy = nested_sets(language.length), set_entropies(language)
    singles = 2 ** torch.arange(language.length)
    every = torch.arange(len(entropy))
    # Entropy of each further word given the words of a set; zero for words of the set itself.
    next_word = entropy[every[:, None] | singles] - entropy[:, None]
    alone = (next_word[sets.before] * sets.revealed).sum(1)
    dependence = alone - (entropy[sets.after] - entropy[sets.before])
    reached = torch.zeros_like(entropy)
    reached[0] = 1.0
    total = 0.0
    for reveal in reveals:
        moved = reached[sets.before] * sets.weight(reveal)
        total += (moved * dependence).sum().item()
        reached = torch.zeros_like(reached).index_add(0, sets.after, moved)
    return total
