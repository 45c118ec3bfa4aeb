import pytest
import torch

from idlm_ds.samplers.grid import LAST_TIME, uniform_grid

from ..tolerances import assert_close


def test_published_grid_of_two_steps():
    expected = torch.tensor([1.0, 0.500005, 1e-5, 0.0], dtype=torch.float64)
    assert_close(uniform_grid(2), expected)


@pytest.mark.parametrize("steps", [1, 4, 32, 1000])
def test_steps_are_equal_and_the_last_one_removes_what_noise_is_left(steps):
    grid = uniform_grid(steps)
    assert len(grid) == steps + 2
    assert grid.dtype == torch.float64
    assert grid[0] == 1
    assert grid[-2] == LAST_TIME == 1e-5
    assert grid[-1] == 0
    equal = torch.full((steps,), (1 - LAST_TIME) / steps, dtype=torch.float64)
    assert_close(-grid[:-1].diff(), equal)


@pytest.mark.parametrize("steps", [0, -3])
def test_a_grid_without_steps_is_refused(steps):
    with pytest.raises(ValueError, match=f"steps must be at least 1, got {steps}"):
        uniform_grid(steps)
