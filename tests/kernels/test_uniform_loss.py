"""The bound of the uniform families and its slope, in every form and layout."""

import pytest
import torch
from torch import Tensor

from .guarded import Guarded
from .scores import CLOSE, KINDS, assert_near, cases, related_scores, sizes, slope_of


def loss(
    raw: Tensor, target: Tensor, weight: Tensor, alpha: Tensor, floor: Tensor, state: Tensor
) -> Tensor:
    """``w / q_i [KL(q | q_f) + d - log d - 1]``, written down as it stands."""
    q, q_f = (alpha[:, None] * x.softmax(1) + floor[:, None] for x in (target, raw))
    q_i, q_fi = (x.gather(1, state[:, None])[:, 0] for x in (q, q_f))
    d = q_i / q_fi
    return weight / q_i * ((q * (q / q_f).log()).sum(1) + d - d.log() - 1)


def noise_levels(rows: int, width: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return weight, alpha, floor and state from almost no noise to almost only noise."""
    alpha = torch.tensor([0.5, 0.999, 1e-3, 0.9], dtype=torch.float64)[:rows]
    weight = (0.5 + torch.rand(rows, generator=generator).double()) / (width * alpha)
    state = torch.randint(width, (rows,), generator=generator)
    return weight, alpha, (1 - alpha) / width, state


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("kind", KINDS)
def test_value_and_slope_are_those_of_plain_autograd(load, kind, dtype, generator):
    for (rows, width), layout in cases():
        target, raw, _ = related_scores(kind, (rows, width), generator)
        level = noise_levels(rows, width, generator)
        expected, expected_slope = slope_of(loss, raw, target, *level)
        arrays = [Guarded.of(x.to(dtype), layout) for x in (raw, target)]
        operator = load("uniform_loss", "soft_uniform_loss")
        nats, slope = operator(*(a.view for a in arrays), *level)
        assert (nats.dtype, slope.dtype) == (torch.float64, dtype)
        weight, alpha, floor, state = level
        q_i = alpha * target.softmax(1).gather(1, state[:, None])[:, 0] + floor
        assert_near(nats, expected, dtype, expected + weight / q_i)
        assert_near(slope, expected_slope, dtype, sizes(expected_slope) + weight / q_i)
        assert all(a.is_intact() for a in arrays)


def test_a_perfect_answer_costs_nothing(load, generator):
    raw = related_scores("usual", (3, 71), generator)[0]
    operator = load("uniform_loss", "soft_uniform_loss")
    nats, slope = operator(raw, raw.clone(), *noise_levels(3, 71, generator))
    assert nats.abs().max() < 1e-12
    assert slope.abs().max() < 1e-12
