import math

import pytest
import torch
from torch import Tensor

from idlm_ds.schedules.cosine import Cosine
from idlm_ds.schedules.gaussian import GaussianClock, GaussianMap, TokenClock
from idlm_ds.schedules.loglinear import LogLinear

from ..tolerances import assert_close, within_standard_errors

VOCABS = [2, 5, 30522, 50258, 126464]
GAMMAS = torch.linspace(-5, 4, 37, dtype=torch.float64)
TIMES = torch.linspace(0, 1, 21, dtype=torch.float64)


def gammas(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def brute(gamma: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Survival probability and its slope from the defining integrals, on 8001 nodes.

    The probability that entry k stays the largest is the integral of phi(z - mu) Phi(z)^(N - 1).
    """
    mu = torch.exp(-gamma / 2)[:, None]
    z = mu + torch.linspace(-12, 12, 8001, dtype=torch.float64)
    step = 24 / 8000
    phi = torch.exp(-((z - mu) ** 2) / 2) / math.sqrt(2 * math.pi)
    others = torch.exp((vocab_size - 1) * torch.special.log_ndtr(z))
    stays = (phi * others).sum(-1) * step
    slope = (-mu / 2 * (z - mu) * phi * others).sum(-1) * step
    n = vocab_size
    return (n * stays - 1) / (n - 1), n / (n - 1) * slope


@pytest.mark.parametrize(
    ("vocab_size", "gamma", "alpha"),
    [
        (50258, -3.5, 0.92835),
        (50258, -1.75, 0.03828),
        (30522, -3.5, 0.94171),
        (30522, -1.75, 0.04868),
        (50258, -3.55, 0.94547),
        (50258, -1.85, 0.04932),
        (50258, -4.0, 0.99869),
        (50258, -1.0, 0.00619),
    ],
)
def test_survival_at_the_published_ends(vocab_size, gamma, alpha):
    got = 1 - GaussianMap(vocab_size).masked(gammas(gamma))
    assert got.item() == pytest.approx(alpha, abs=5.1e-6)


@pytest.mark.parametrize(
    ("alpha", "gamma"),
    [
        (0.999, -4.0230),
        (0.9455, -3.5501),
        (0.5, -2.8838),
        (0.0493, -1.8499),
        (0.01, -1.2066),
        (1e-3, -0.0960),
    ],
)
def test_gamma_at_known_survivals(alpha, gamma):
    got = GaussianMap(50258).gamma(gammas(1 - alpha))
    assert got.item() == pytest.approx(gamma, abs=5.1e-5)


@pytest.mark.parametrize("vocab_size", VOCABS)
def test_a_fine_quadrature_changes_nothing(vocab_size):
    alpha, slope = brute(GAMMAS, vocab_size)
    got = GaussianMap(vocab_size)
    torch.testing.assert_close(1 - got.masked(GAMMAS), alpha, rtol=0, atol=1e-12)
    torch.testing.assert_close(got.slope(GAMMAS), slope, rtol=0, atol=1e-12)


def test_two_words_have_a_closed_form():
    """With one rival the larger entry is right with probability Phi(mu / sqrt 2)."""
    gamma = torch.linspace(-5.25, 6, 60, dtype=torch.float64)
    mu = torch.exp(-gamma / 2)
    lost = torch.special.erfc(mu / 2)
    got = GaussianMap(2)
    # Relative down to 1e-22, so the share lost is never 1 minus the share kept.
    torch.testing.assert_close(got.masked(gamma), lost, rtol=1e-10, atol=0)
    slope = -mu / 2 * torch.exp(-(mu**2) / 4) / math.sqrt(math.pi)
    torch.testing.assert_close(got.slope(gamma), slope, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("vocab_size", [3, 7])
def test_the_largest_entry_survives_as_often_as_the_map_says(vocab_size, generator):
    gamma, draws = -0.7, 200_000
    signal, spread = (math.sqrt(torch.sigmoid(gammas(g)).item()) for g in (-gamma, gamma))
    w = spread * torch.randn(draws, vocab_size, generator=generator)
    w[:, 1] += signal
    p = (w.argmax(-1) == 1).double().mean().item()
    expected = 1 - GaussianMap(vocab_size).masked(gammas(gamma)).item()
    n = vocab_size
    se = n / (n - 1) * math.sqrt(p * (1 - p) / draws)
    assert within_standard_errors((n * p - 1) / (n - 1), expected, se)


@pytest.mark.parametrize("vocab_size", VOCABS)
def test_slope_equals_autograd_through_the_quadrature(vocab_size):
    gamma = GAMMAS.clone().requires_grad_()
    got = GaussianMap(vocab_size)
    (grad,) = torch.autograd.grad(got.masked(gamma).sum(), gamma)
    assert_close(got.slope(GAMMAS), -grad)
    assert (got.slope(GAMMAS) < 0).all()


@pytest.mark.parametrize("vocab_size", VOCABS)
def test_the_share_lost_is_relatively_accurate_where_it_is_small(vocab_size):
    # From the other side: the chance that a rival wins, summed without a subtraction from 1.
    gamma = gammas(-5.0, -4.8, -4.6)
    u = torch.linspace(-12, 12, 8001, dtype=torch.float64)
    phi = torch.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)
    beaten = torch.special.erfc((torch.exp(-gamma / 2)[:, None] + u) / math.sqrt(2)) / 2
    lost = -torch.expm1((vocab_size - 1) * torch.log1p(-beaten))
    n = vocab_size
    expected = n / (n - 1) * (phi * lost).sum(-1) * 24 / 8000
    got = GaussianMap(vocab_size).masked(gamma)
    assert expected.max() < 1e-4
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("vocab_size", VOCABS)
def test_gamma_inverts_the_map_from_nearly_clean_to_nearly_lost(vocab_size):
    got = GaussianMap(vocab_size)
    shares = gammas(1e-14, 1e-9, 1e-3, 0.3, 0.5, 0.9, 0.999, 1 - 1e-6)
    gamma = got.gamma(shares)
    assert (gamma.diff() > 0).all()
    torch.testing.assert_close(got.masked(gamma), shares, rtol=1e-12, atol=0)
    middle = torch.linspace(-5, 4, 19, dtype=torch.float64)
    assert_close(got.gamma(got.masked(middle)), middle)


def test_more_words_need_a_clearer_signal():
    alpha = torch.cat([1 - GaussianMap(v).masked(gammas(-3.0)) for v in (50, 5000, 500_000)])
    assert (alpha.diff() < -0.05).all()


@pytest.mark.parametrize("ends", [(-3.55, -1.85), (-4.0, -1.0)])
def test_the_clock_of_published_runs_is_linear_in_gamma(ends):
    clock = GaussianClock(GaussianMap(50258), *ends)
    gamma = clock.gamma(TIMES)
    assert_close(gamma, ends[0] + TIMES * (ends[1] - ends[0]))
    at, (alpha, slope) = clock.at(TIMES), brute(gamma, 50258)
    assert_close(at.alpha, alpha)
    assert_close(at.dalpha, (ends[1] - ends[0]) * slope)
    assert_close(at.masked, 1 - alpha)
    assert_close(clock.inverse(at.alpha), TIMES)


def test_the_clock_defaults_to_the_published_range():
    alpha = GaussianClock(GaussianMap(50258)).at(gammas(0.0, 1.0)).alpha
    torch.testing.assert_close(alpha, gammas(0.94547, 0.04932), rtol=0, atol=5.1e-6)


@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()])
@pytest.mark.parametrize("vocab_size", [3, 50258])
def test_a_clock_of_tokens_stands_for_noise_that_loses_as_much(schedule, vocab_size):
    gaussian = GaussianMap(vocab_size)
    clock = TokenClock(gaussian, schedule)
    t = torch.linspace(1e-3, 1, 23, dtype=torch.float64)
    at = schedule.at(t)
    torch.testing.assert_close(gaussian.masked(clock.gamma(t)), at.masked, rtol=1e-11, atol=0)
    for name in ("alpha", "dalpha", "masked", "sigma"):
        assert getattr(clock.at(t), name).equal(getattr(at, name))
    assert clock.inverse(at.alpha).equal(schedule.inverse(at.alpha))


def test_a_clock_of_tokens_over_a_gaussian_clock_gives_its_gamma_back():
    clock = GaussianClock(GaussianMap(50258))
    assert_close(TokenClock(GaussianMap(50258), clock).gamma(TIMES), clock.gamma(TIMES))


@pytest.mark.parametrize("vocab_size", [1, 0, -4])
def test_a_vocabulary_without_a_choice_is_refused(vocab_size):
    with pytest.raises(ValueError, match=f"vocab_size must be at least 2, got {vocab_size}"):
        GaussianMap(vocab_size)


@pytest.mark.parametrize("ends", [(-1.0, -1.0), (-1.0, -2.0), (-50.0, 0.0), (0.0, math.nan)])
def test_a_clock_that_does_not_move_forward_is_refused(ends):
    with pytest.raises(ValueError, match="gamma_min < gamma_max"):
        GaussianClock(GaussianMap(5), *ends)
