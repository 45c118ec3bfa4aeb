"""The best chain without a latent that a search finds.

Shapes: S sentences, U states, N sets of positions, M pairs of nested sets, L positions, V words.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Generator, Tensor

from idlm_ds.laboratory.chain import PartlyMasked, backward, forward, nested_sets, word_probs

TINY = 1e-300


def best_law(
    space: PartlyMasked,
    start: Float64[Tensor, "U L V"],
    reveals: Sequence[float],
    *,
    iterations: int = 200,
) -> Float64[Tensor, " S"]:
    """Search for the answers that minimise ``KL(truth | law of sentences)`` of a chain.

    The order in which positions were revealed is a hidden variable of a sentence, so exact answers
    need not be the best ones. Expectation maximisation never makes them worse, but may stop at a
    local optimum: what it finds is an upper bound of the least divergence.

    Args:
        space: The states.
        start: Log-probabilities of words, of ``PartlyMasked.answers``, from which it goes.
        reveals: Of ``reveal_probabilities``.
        iterations: How long it goes.

    Returns:
        The law of sentences.
    """
    answers = start
    for _ in range(iterations):
        answers = _improved(space, answers, reveals)
    words = word_probs(space.true_words(answers))
    return forward(words, reveals)[-1][:, -1]


def perturbed(
    answers: Float64[Tensor, "U L V"], *, size: float, generator: Generator
) -> Float64[Tensor, "U L V"]:
    """Make another start for the search: scale probabilities at random and floor them a little."""
    shift = size * torch.randn(answers.shape, generator=generator, dtype=answers.dtype)
    return (answers.clamp(min=-20.0) + shift).log_softmax(-1)


def _improved(
    space: PartlyMasked, answers: Float64[Tensor, "U L V"], reveals: Sequence[float]
) -> Float64[Tensor, "U L V"]:
    """Fit the answers to how often each word appears in each state on the way to true sentences."""
    language = space.language
    sets = nested_sets(language.length)
    words = word_probs(space.true_words(answers))
    reached, ahead = forward(words, reveals), backward(words, reveals)
    weight = language.probs / ahead[0][:, 0].clamp(min=TINY)
    flow = torch.zeros_like(words)
    for reveal, here, there in zip(reveals, reached, ahead[1:], strict=False):
        flow += here[:, sets.before] * there[:, sets.after] * sets.weight(reveal)
    flow *= words * weight[:, None]
    counts = torch.zeros_like(answers)
    for position, revealed in enumerate(sets.revealed.unbind(1)):
        drawn = torch.zeros_like(reached[0]).index_add_(1, sets.before, flow * revealed)
        word = language.sentences[:, position, None].expand_as(drawn)
        counts[:, position].index_put_((space.index, word), drawn, accumulate=True)
    total = counts.sum(-1, keepdim=True)
    return torch.where(total > 0, (counts / total.clamp(min=TINY)).clamp(min=TINY).log(), answers)
