import math

import pytest
import torch

from idlm_ds.schedules.geometric import Geometric

from ..tolerances import assert_close

RANGES = [(1e-4, 20.0), (0.05, 4.0)]
TIMES = torch.linspace(0, 1, 41, dtype=torch.float64)


def test_published_values():
    at = Geometric(sigma_min=1e-4, sigma_max=20.0).at(torch.tensor([0.0, 0.5, 1.0]).double())
    sigma = torch.tensor([1e-4, math.sqrt(20e-4), 20.0], dtype=torch.float64)
    assert_close(at.sigma, sigma)
    assert_close(at.alpha, torch.exp(-sigma))
    # SEDD's rate of noise, sigma log(sigma_max / sigma_min).
    assert_close(-at.dalpha / at.alpha, sigma * math.log(20e4))


@pytest.mark.parametrize("ends", RANGES)
def test_noise_grows_by_a_constant_factor(ends):
    sigma = Geometric(*ends).at(TIMES).sigma
    factor = (ends[1] / ends[0]) ** (1 / 40)
    assert_close(sigma[1:] / sigma[:-1], torch.full((40,), factor, dtype=torch.float64))


@pytest.mark.parametrize("ends", RANGES)
def test_inverse_holds_at_both_ends(ends):
    schedule = Geometric(*ends)
    assert_close(schedule.inverse(schedule.at(TIMES).alpha), TIMES)


def test_masked_is_accurate_where_one_minus_alpha_cancels():
    at = Geometric(sigma_min=1e-12, sigma_max=1.0).at(torch.tensor([0.0, 0.25]).double())
    sigma = torch.tensor([1e-12, 1e-9], dtype=torch.float64)
    torch.testing.assert_close(at.masked, sigma - sigma**2 / 2, rtol=1e-13, atol=0)
    assert ((1 - at.alpha) / sigma - 1).abs()[0] > 1e-6


@pytest.mark.parametrize(
    "ends", [(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (0.1, math.inf), (math.nan, 1.0)]
)
def test_a_range_that_does_not_rise_is_refused(ends):
    with pytest.raises(ValueError, match="need 0 < sigma_min < sigma_max, got"):
        Geometric(*ends)
