"""What Duo noises of a soft target, and the law of the state that comes of it."""

import math

import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Noisy
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.registry.families import RELAXATIONS
from idlm_ds.schedules.gaussian import GaussianMap, TokenClock
from idlm_ds.schedules.loglinear import LogLinear
from idlm_ds.tensor_types import SoftInput
from tests import mixtures

from ..tolerances import assert_close, assert_frequencies

T = torch.tensor([0.5], dtype=torch.float64)
LIKELY = (0.5, 0.3)
"""Probabilities of two words; the others share the rest."""


def duo(relaxation: str, vocab_size: int, tau: float = 1e-3) -> Duo:
    schedule = LogLinear(eps=0.0)
    clock = TokenClock(GaussianMap(vocab_size), schedule)
    return Duo(vocab_size, schedule, clock, tau=tau, relaxation=relaxation)


def answer(vocab_size: int) -> Tensor:
    rest = (1 - sum(LIKELY)) / (vocab_size - 2)
    return torch.tensor([*LIKELY, *[rest] * (vocab_size - 2)], dtype=torch.float64)


def states(relaxation: str, vocab_size: int, count: int) -> Tensor:
    """How often the state is the first word, the second, or another one."""
    tokens = torch.zeros(1, count, dtype=torch.long)
    target = SoftTokens(tokens, torch.arange(count), answer(vocab_size).expand(count, -1))
    x_t = duo(relaxation, vocab_size).corrupt(target, T, noise=Noise([3])).x_t
    return x_t.flatten().clamp(max=2).bincount(minlength=3)


def law_of_drawn_words(vocab_size: int) -> Tensor:
    p = 0.5 * answer(vocab_size) + 0.5 / vocab_size
    return torch.stack([p[0], p[1], p[2:].sum()])


def law_of_noised_probabilities(vocab_size: int) -> Tensor:
    """The chance that each entry of ``a G + b xi`` is the largest, by quadrature."""
    probs = answer(vocab_size)
    signal = torch.exp(-GaussianMap(vocab_size).gamma(T) / 2)
    u = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    weight = torch.exp(-(u**2) / 2)

    def wins(p: Tensor, others: list[tuple[Tensor, int]]) -> Tensor:
        logs = sum(n * torch.special.log_ndtr(u + signal * (p - q)) for q, n in others)
        return (weight * logs.exp()).sum() / weight.sum()

    rest = (probs[2], vocab_size - 2)
    first = wins(probs[0], [(probs[1], 1), rest])
    second = wins(probs[1], [(probs[0], 1), rest])
    return torch.stack([first, second, 1 - first - second])


@pytest.mark.parametrize(("vocab_size", "count"), [(64, 20_000), (2049, 4_000)])
@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_the_state_has_the_law_that_losses_assume_where_a_word_is_drawn(
    relaxation, vocab_size, count
):
    assumed = law_of_drawn_words(vocab_size)
    noised = law_of_noised_probabilities(vocab_size)
    law = noised if relaxation == "probabilities" else assumed
    assert_frequencies(states(relaxation, vocab_size, count), law)
    # A word of probability one half is the state with 1/4; where probabilities are noised, it is
    # beaten by chance entries, more often the more there are.
    assert assumed[0].item() == pytest.approx(0.25, abs=0.01)
    assert noised[0].item() == pytest.approx({64: 0.136, 2049: 0.05}[vocab_size], abs=0.01)


def corrupted(relaxation: str, scores: Tensor, tau: float = 0.3) -> Noisy:
    batch, length, vocab_size = 2, 4, scores.shape[1]
    target = SoftTokens(
        torch.zeros(batch, length, dtype=torch.long), torch.arange(8), scores.softmax(-1)
    )
    t = torch.tensor([0.4, 0.8], dtype=torch.float64)
    return duo(relaxation, vocab_size, tau).corrupt(target, t, noise=Noise([1, 2]))


@pytest.fixture
def scores(generator: torch.Generator) -> Tensor:
    return torch.randn(8, 5, generator=generator, dtype=torch.float64).requires_grad_()


def test_a_drawn_word_is_noised_alike_with_and_without_a_gradient(scores):
    word, through = (corrupted(name, scores) for name in ("word", "straight_through"))
    assert word.x_t.equal(through.x_t)
    assert isinstance(word.x_in, SoftInput)
    assert word.x_in.scores.equal(through.x_in.scores.detach())
    assert word.x_0.probs.requires_grad
    assert not word.x_in.requires_grad
    assert word.input_gain is None


def test_the_gradient_passes_straight_through_the_word_to_its_probabilities(scores):
    """The input is that of a drawn word; its derivative is that of a noised vector."""
    tau = 0.3
    noisy = corrupted("straight_through", scores, tau)
    target, c = noisy.x_0.probs, torch.linspace(-1, 1, 5, dtype=torch.float64)
    p = mixtures.rows_of(noisy.x_in, 5).softmax(-1)
    (got,) = torch.autograd.grad((c * p).sum(), target)
    p = p.detach()
    gain = noisy.input_gain.flatten()[:, None]
    assert_close(got, gain * p * (c - (p * c).sum(-1, keepdim=True)))
    assert got.abs().max() > 0.1


def test_a_hard_target_is_noised_alike_by_all():
    target = SoftTokens.hard(torch.tensor([[0, 1, 2, 3]]), vocab_size=5)
    draws = [duo(name, 5).corrupt(target, T, noise=Noise([7])) for name in RELAXATIONS]
    for other in draws[1:]:
        assert other.x_t.equal(draws[0].x_t)
        assert other.x_in.scores.equal(draws[0].x_in.scores)


def test_an_unknown_relaxation_is_refused():
    with pytest.raises(ValueError, match=r"one of probabilities, straight_through, word, got 'x'"):
        duo("x", 5)


def test_a_word_is_drawn_from_the_sequence_s_own_numbers(scores):
    """A sequence is corrupted the same whatever is beside it."""
    both = corrupted("word", scores)
    alone = SoftTokens(torch.zeros(1, 4, dtype=torch.long), torch.arange(4), scores[4:].softmax(-1))
    t = torch.tensor([0.8], dtype=torch.float64)
    again = duo("word", 5, 0.3).corrupt(alone, t, noise=Noise([2]))
    assert again.x_t[0].equal(both.x_t[1])
    assert math.isfinite(again.x_in.scores.sum().item())
