"""Languages are what they say, and their posteriors are those of Bayes' rule."""

import pytest
import torch
from torch import Tensor

from idlm_ds.laboratory.languages import (
    LANGUAGES,
    Language,
    copy,
    latin,
    markov,
    pairs,
    shuffle,
)

SMALL = {
    "pairs": pairs(num_pairs=2, num_words=3),
    "copy": copy(num_words=3, length=3),
    "shuffle": shuffle(num_words=4),
    "latin": latin(order=3),
    "markov": markov(num_words=3, length=4),
}


@pytest.fixture(params=SMALL.values(), ids=SMALL.keys())
def language(request) -> Language:
    return request.param


def partly_masked(language: Language, count: int, generator: torch.Generator) -> Tensor:
    """True sentences with a random set of masks each."""
    x_0 = language.draw(count, generator=generator)
    is_masked = torch.rand(x_0.shape, generator=generator) < 0.6
    return torch.where(is_masked, language.mask_id, x_0)


@pytest.mark.parametrize(
    ("name", "count", "entropy"),
    [
        ("pairs", 8**4, 4 * 2.07944),
        ("copy", 8, 2.0794),
        ("shuffle", 120, 4.7875),
        ("latin", 12, 2.4849),
        ("markov", 4**5, None),
    ],
)
def test_all_sentences_are_listed_once(name, count, entropy):
    language = LANGUAGES[name]()
    assert len(language.sentences.unique(dim=0)) == len(language.sentences) == count
    assert language.probs.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert bool((language.probs > 0).all())
    assert entropy is None or language.entropy == pytest.approx(entropy, abs=1e-4)


def test_sentences_obey_their_rule():
    assert bool((pairs().sentences[:, :4] == pairs().sentences[:, 4:]).all())
    squares = latin().sentences.view(-1, 3, 3)
    for lines in (squares, squares.mT):
        assert bool((lines.sort(-1).values == torch.arange(3)).all())
    assert bool((shuffle().sentences.sort(-1).values == torch.arange(5)).all())


def test_a_chain_of_words_is_stationary():
    language = markov(num_words=3, length=4)
    for position in range(4):
        for other in range(4):
            hot = [
                torch.zeros(3, dtype=torch.float64).index_add(
                    0, language.sentences[:, at], language.probs
                )
                for at in (position, other)
            ]
            torch.testing.assert_close(*hot, rtol=1e-9, atol=1e-12)


def test_posteriors_are_conditional_frequencies(language, generator):
    x_t = partly_masked(language, 64, generator)
    got = language.posterior(x_t)
    for state, rows in zip(x_t, got, strict=True):
        fits = ((state == language.sentences) | (state == language.mask_id)).all(1)
        weight = language.probs * fits
        for position in (state == language.mask_id).nonzero()[:, 0]:
            expected = torch.zeros(language.num_words, dtype=torch.float64)
            expected.index_add_(0, language.sentences[:, position], weight / weight.sum())
            torch.testing.assert_close(rows[position], expected, rtol=1e-10, atol=1e-12)


def test_slips_make_a_language_in_which_every_sequence_is_possible(language, generator):
    """Posteriors with slips are those of a language whose sentences are all sequences."""
    slip, words = 0.1, language.num_words
    sequences = torch.cartesian_prod(*[torch.arange(words)] * language.length)
    is_right = (sequences[:, None] == language.sentences).double()
    kernel = is_right * (1 - slip) + slip / words
    slipped = Language(words, sequences, kernel.prod(2) @ language.probs)
    x_t = torch.randint(0, words + 1, (64, language.length), generator=generator)
    got, expected = language.posterior(x_t, slip=slip), slipped.posterior(x_t)
    is_masked = x_t == language.mask_id
    torch.testing.assert_close(got[is_masked], expected[is_masked], rtol=1e-9, atol=1e-12)


def test_posteriors_of_noised_words_look_at_the_other_positions(language, generator):
    alpha = torch.tensor([0.2, 0.9], dtype=torch.float64)
    x_t = torch.randint(0, language.num_words, (2, language.length), generator=generator)
    got = language.posterior_of_noised(x_t, alpha)
    for a, state, rows in zip(alpha, x_t, got, strict=True):
        kernel = a * (state == language.sentences) + (1 - a) / language.num_words
        for position in range(language.length):
            others = [p for p in range(language.length) if p != position]
            weight = kernel[:, others].prod(1) * language.probs
            expected = torch.zeros(language.num_words, dtype=torch.float64)
            expected.index_add_(0, language.sentences[:, position], weight / weight.sum())
            torch.testing.assert_close(rows[position], expected, rtol=1e-9, atol=1e-12)


def test_words_that_no_sentence_has_are_refused_without_slips():
    language = copy(num_words=3, length=3)
    state = torch.tensor([[0, 1, language.mask_id]])
    with pytest.raises(ValueError, match="^posterior: these visible words are in no sentence$"):
        language.posterior(state)
    assert bool((language.posterior(state, slip=0.1) > 0).all())
