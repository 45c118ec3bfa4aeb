import pytest
import torch

from idlm_ds.schedules.base import NoiseSchedule
from idlm_ds.schedules.cosine import Cosine
from idlm_ds.schedules.gaussian import GaussianClock, GaussianMap, TokenClock
from idlm_ds.schedules.geometric import Geometric
from idlm_ds.schedules.loglinear import LogLinear

from ..tolerances import assert_close

SCHEDULES = {
    "log-linear": LogLinear(),
    "log-linear to zero": LogLinear(eps=0.0),
    "cosine": Cosine(),
    "cosine that keeps much": Cosine(eps=0.3),
    "geometric": Geometric(),
    "geometric, narrow": Geometric(sigma_min=0.01, sigma_max=3.0),
    "Gaussian, 50258 words": GaussianClock(GaussianMap(50258)),
    "Gaussian, 3 words": GaussianClock(GaussianMap(3), gamma_min=-4.0, gamma_max=3.0),
    "tokens": TokenClock(GaussianMap(50258), Cosine(eps=0.01)),
}
INSIDE = torch.linspace(0.03, 0.97, 48, dtype=torch.float64)


@pytest.fixture(params=SCHEDULES.values(), ids=SCHEDULES.keys())
def schedule(request) -> NoiseSchedule:
    return request.param


def test_derivative_equals_autograd(schedule):
    t = INSIDE.clone().requires_grad_()
    at = schedule.at(t)
    (slope,) = torch.autograd.grad(at.alpha.sum(), t)
    assert_close(at.dalpha.detach(), slope)
    assert (at.dalpha < 0).all()


def test_derivative_is_the_change_of_alpha_over_a_short_while(schedule):
    step = 1e-5
    change = schedule.at(INSIDE + step).alpha - schedule.at(INSIDE - step).alpha
    slope = schedule.at(INSIDE).dalpha
    torch.testing.assert_close(change / (2 * step), slope, rtol=1e-6, atol=1e-8)


def test_inverse_undoes_the_schedule(schedule):
    assert_close(schedule.inverse(schedule.at(INSIDE).alpha), INSIDE)


def test_the_schedule_undoes_its_inverse(schedule):
    low, high = (schedule.at(torch.tensor([t]).double()).alpha.item() for t in (0.99, 0.01))
    alpha = torch.linspace(low, high, 17, dtype=torch.float64)
    assert_close(schedule.at(schedule.inverse(alpha)).alpha, alpha)


def test_masked_and_sigma_say_the_same_as_alpha(schedule):
    at = schedule.at(INSIDE)
    assert_close(at.masked, 1 - at.alpha)
    assert_close(at.sigma, -at.alpha.log())


def test_a_reverse_step_to_time_zero_ends_in_clean_text(schedule):
    nowhere = torch.zeros(2, dtype=torch.float64)
    target = schedule.target(nowhere)
    assert target.alpha.tolist() == [1, 1]
    assert target.masked.tolist() == [0, 0]
    assert target.sigma.tolist() == [0, 0]


def test_a_reverse_step_to_any_other_time_follows_the_schedule(schedule):
    s = torch.tensor([0.0, 1e-9, 0.4, 0.0, 1.0], dtype=torch.float64)
    target, at = schedule.target(s), schedule.at(s)
    later = s > 0
    for name in ("alpha", "masked", "sigma"):
        assert getattr(target, name)[later].equal(getattr(at, name)[later])
    assert target.dalpha.equal(at.dalpha)
    assert target.alpha[~later].tolist() == [1, 1]


@pytest.mark.parametrize("name", ["geometric", "Gaussian, 50258 words"])
def test_some_schedules_leave_noise_at_time_zero_which_only_a_reverse_step_removes(name):
    start = torch.zeros(1, dtype=torch.float64)
    assert SCHEDULES[name].at(start).masked.item() > 5e-5
    assert SCHEDULES[name].target(start).masked.item() == 0
