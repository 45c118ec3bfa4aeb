"""Draws invert the cumulative distribution exactly."""

import numpy as np
import pytest
import torch

from .guarded import Guarded
from .scores import cases


def inverted(probs: torch.Tensor, uniform: torch.Tensor) -> list[int]:
    """Count the cumulative sums at or below each target, one row after the other."""
    rows = []
    for p, u in zip(probs.double().numpy(), uniform.numpy(), strict=True):
        cumulative = np.cumsum(p)
        rows.append(int(np.searchsorted(cumulative, u * cumulative[-1], side="right")))
    return rows


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_boundaries_fall_where_the_sums_do(load, dtype, generator):
    for (rows, width), layout in cases():
        # Small integers: their sums are exact, and targets hit boundaries.
        probs = torch.randint(0, 4, (rows, width), generator=generator).to(dtype)
        probs[:, 1] = 3
        total = probs.sum(1).double()
        array = Guarded.of(probs, layout)
        for k in range(6):
            uniform = torch.full((rows,), k / 6, dtype=torch.float64)
            if k % 2:
                uniform = (uniform * total).floor() / total
            assert load("draw")(array.view, uniform).tolist() == inverted(probs, uniform)
        assert array.is_intact()


def test_usual_rows(load, generator):
    probs = torch.randn(40, 71, generator=generator).mul(3).softmax(1)
    uniform = torch.rand(40, generator=generator, dtype=torch.float64)
    ids = load("draw")(probs, uniform)
    assert ids.dtype == torch.int64
    assert ids.tolist() == inverted(probs, uniform)


def test_what_has_no_probability_is_never_drawn(load):
    probs = torch.zeros(3, 71)
    probs[0, 40], probs[1, [0, 33]], probs[2, [70, 5]] = 1e-30, 0.5, 1.0
    almost = np.nextafter(1.0, 0.0)
    for u, expected in ((0.0, [40, 0, 5]), (0.5, [40, 33, 70]), (almost, [40, 33, 70])):
        uniform = torch.full((3,), u, dtype=torch.float64)
        assert load("draw")(probs, uniform).tolist() == expected


def test_rare_entries_come_as_often_as_they_should(load):
    probs = torch.tensor([1e-9, 0.25, 0.5, 0.25 - 1e-9], dtype=torch.float64).repeat(10, 1)
    # A number that float32 would round to zero.
    uniform = torch.full((10,), 0.9e-9, dtype=torch.float64)
    assert not load("draw")(probs, uniform).any()
    assert (load("draw")(probs, uniform + 0.2e-9) == 1).all()


def test_many_rare_entries_beside_a_sure_one_keep_their_share(load):
    # Rounded to float32, the sum of the row would be that of its first entry.
    probs = torch.cat([torch.ones(1, 1), torch.full((1, 70), 1e-8)], 1)
    tail = probs[0, 1].double()
    for entry in (1, 30, 31, 32, 70):
        uniform = (1 + (entry - 0.5) * tail) / (1 + 70 * tail)
        assert load("draw")(probs, uniform.view(1)).tolist() == [entry]
