import math

import pytest
import torch

from idlm_ds.schedules.loglinear import LogLinear

from ..tolerances import assert_close

TIMES = torch.linspace(0, 1, 41, dtype=torch.float64)
EPS = [0.0, 1e-3, 0.2]


def test_published_values():
    at = LogLinear(eps=1e-3).at(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert_close(at.alpha, torch.tensor([1.0, 0.5005, 1e-3], dtype=torch.float64))
    assert_close(at.dalpha, torch.full((3,), -0.999, dtype=torch.float64))
    assert at.sigma[0] == 0
    assert at.sigma[2].item() == pytest.approx(6.907755278982137, rel=1e-12)


@pytest.mark.parametrize("eps", EPS)
def test_weight_of_the_loss_is_one_over_t(eps):
    t = TIMES[1:]
    at = LogLinear(eps=eps).at(t)
    assert_close(-at.dalpha / at.masked, 1 / t)


@pytest.mark.parametrize("eps", EPS)
def test_derivative_equals_autograd(eps):
    t = TIMES.clone().requires_grad_()
    at = LogLinear(eps=eps).at(t)
    (slope,) = torch.autograd.grad(at.alpha.sum(), t)
    assert_close(at.dalpha, slope)
    assert (at.dalpha < 0).all()


@pytest.mark.parametrize("eps", EPS)
def test_inverse_undoes_the_schedule(eps):
    schedule = LogLinear(eps=eps)
    assert_close(schedule.inverse(schedule.at(TIMES).alpha), TIMES)
    alpha = torch.linspace(eps, 1, 17, dtype=torch.float64)
    assert_close(schedule.at(schedule.inverse(alpha)).alpha, alpha)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masked_is_accurate_where_one_minus_alpha_cancels(dtype):
    t = torch.tensor([1e-12, 1e-9, 1e-5], dtype=dtype)
    at = LogLinear(eps=1e-3).at(t)
    exact = 0.999 * t
    few_ulps = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(at.masked, exact, rtol=few_ulps, atol=0)
    # To first order the total noise is the masked share.
    torch.testing.assert_close(at.sigma, exact + exact**2 / 2, rtol=max(few_ulps, 1e-9), atol=0)
    cancelled = ((1 - at.alpha) / exact - 1).abs()
    assert cancelled[0] > 1e-6


@pytest.mark.parametrize("eps", EPS)
def test_masked_and_sigma_say_the_same_as_alpha(eps):
    at = LogLinear(eps=eps).at(TIMES[:-1])
    assert_close(at.masked, 1 - at.alpha)
    assert_close(at.sigma, -at.alpha.log())


@pytest.mark.parametrize("eps", [-1e-9, 1.0, 2.0, math.nan, math.inf])
def test_an_eps_outside_its_range_is_refused(eps):
    with pytest.raises(ValueError, match=r"eps must be in \[0, 1\), got"):
        LogLinear(eps=eps)
