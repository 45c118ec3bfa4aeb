"""The gap of the uniform families is the difference of two bounds, in every form and layout."""

import pytest
import torch
from torch import Tensor

from .guarded import Guarded
from .scores import CLOSE, KINDS, assert_near, cases, related_scores, sizes, slope_of
from .test_uniform_loss import loss, noise_levels


def gap(student: Tensor, teacher: Tensor, fake: Tensor, *level: Tensor) -> Tensor:
    return loss(teacher, student, *level) - loss(fake, student, *level)


def gap_at_a_fixed_weight(student: Tensor, teacher: Tensor, fake: Tensor, *level: Tensor) -> Tensor:
    _, alpha, floor, state = level
    q_i = alpha * student.softmax(1).gather(1, state[:, None])[:, 0] + floor
    return gap(student, teacher, fake, *level) * q_i / q_i.detach()


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_unbiased", [False, True], ids=["published", "unbiased"])
def test_value_and_slope_are_those_of_plain_autograd(load, is_unbiased, kind, dtype, generator):
    plain = gap_at_a_fixed_weight if is_unbiased else gap
    for (rows, width), layout in cases():
        raw = related_scores(kind, (rows, width), generator)
        level = noise_levels(rows, width, generator)
        expected, expected_slope = slope_of(plain, *raw, *level)
        arrays = [Guarded.of(x.to(dtype), layout) for x in raw]
        nats, slope = load("uniform_gap")(
            *(a.view for a in arrays), *level, is_unbiased=is_unbiased
        )
        assert (nats.dtype, slope.dtype) == (torch.float64, dtype)
        weight, alpha, floor, state = level
        q_i = alpha * raw[0].softmax(1).gather(1, state[:, None])[:, 0] + floor
        losses = sum(loss(x, raw[0], *level) for x in raw[1:])
        assert_near(nats, expected, dtype, losses + weight / q_i)
        assert_near(slope, expected_slope, dtype, sizes(expected_slope) + weight / q_i)
        assert all(a.is_intact() for a in arrays)


def test_equal_networks_leave_no_gap(load, generator):
    student, teacher, _ = related_scores("usual", (3, 71), generator)
    level = noise_levels(3, 71, generator)
    nats, slope = load("uniform_gap")(student, teacher, teacher.clone(), *level)
    assert not nats.any()
    assert not slope.any()


def test_networks_that_hardly_differ_keep_the_digits_of_the_gap(load, generator):
    student, teacher, _ = related_scores("usual", (4, 71), generator)
    # Much noise: logs of numbers near 1, of which 1 + x would keep few digits.
    alpha = torch.tensor([1e-3, 1e-4, 1e-5, 1e-6], dtype=torch.float64)
    state = torch.randint(71, (4,), generator=generator)
    level = (1 / (71 * alpha), alpha, (1 - alpha) / 71, state)
    fake = teacher + 0.01 * torch.randn(4, 71, generator=generator).double()
    raw = [x.float() for x in (student, teacher, fake)]
    _, expected_slope = slope_of(gap, *(x.double() for x in raw), *level)
    _, slope = load("uniform_gap")(*raw, *level)
    assert ((slope - expected_slope).abs().amax(1) < 1e-3 * sizes(expected_slope)).all()
