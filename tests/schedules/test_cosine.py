import math

import pytest
import torch

from idlm_ds.schedules.cosine import Cosine

from ..tolerances import assert_close

EPS = [1e-3, 1e-6, 0.3]


def test_published_values():
    at = Cosine(eps=1e-3).at(torch.tensor([0.0, 1 / 3, 0.5, 1.0], dtype=torch.float64))
    # cos 0, cos 30 degrees, cos 45 degrees and cos 90 degrees.
    cosines = torch.tensor([1.0, math.sqrt(3) / 2, math.sqrt(0.5), 0.0], dtype=torch.float64)
    assert_close(at.alpha, 1e-3 + 0.999 * cosines)
    sines = torch.tensor([0.0, 0.5, math.sqrt(0.5), 1.0], dtype=torch.float64)
    assert_close(at.dalpha, -0.999 * math.pi / 2 * sines)
    assert at.sigma[-1].item() == pytest.approx(-math.log(1e-3), rel=1e-10)


@pytest.mark.parametrize("eps", EPS)
def test_both_ends_are_reached_exactly(eps):
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    at = Cosine(eps=eps).at(ends)
    assert at.alpha[0] == 1
    assert at.masked[0] == at.sigma[0] == 0
    assert_close(at.alpha[1:], torch.tensor([eps], dtype=torch.float64))
    assert_close(Cosine(eps=eps).inverse(at.alpha), ends)


@pytest.mark.parametrize("eps", EPS)
def test_masked_is_accurate_where_one_minus_alpha_cancels(eps):
    t = torch.tensor([1e-9, 1e-7, 1e-5], dtype=torch.float64)
    at = Cosine(eps=eps).at(t)
    angle = math.pi / 2 * t
    exact = (1 - eps) * (angle**2 / 2 - angle**4 / 24)
    torch.testing.assert_close(at.masked, exact, rtol=1e-14, atol=0)
    torch.testing.assert_close(at.sigma, exact + exact**2 / 2, rtol=1e-14, atol=0)
    assert ((1 - at.alpha) / exact - 1).abs()[0] > 0.1


@pytest.mark.parametrize("eps", EPS)
def test_weight_of_the_loss_falls_from_two_over_t(eps):
    """Near t=0 the masked share grows like t squared, so its logarithm like 2 log t."""
    t = torch.tensor([1e-6, 1e-4], dtype=torch.float64)
    at = Cosine(eps=eps).at(t)
    torch.testing.assert_close(-at.dalpha / at.masked, 2 / t, rtol=1e-7, atol=0)


@pytest.mark.parametrize("eps", [0.0, -1e-9, 1.0, 2.0, math.nan, math.inf])
def test_an_eps_outside_its_range_is_refused(eps):
    with pytest.raises(ValueError, match=r"eps must be in \(0, 1\), got"):
        Cosine(eps=eps)
