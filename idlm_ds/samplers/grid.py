"""Time grids."""

import torch
from jaxtyping import Float
from torch import Tensor

LAST_TIME = 1e-5
"""Where the uniform grid ends; what is still noise there is removed in one more step to t=0."""


def uniform_grid(steps: int) -> Float[Tensor, " N"]:
    """Make ``steps`` equal steps from t=1 to nearly 0, and one that removes the rest.

    Returns:
        ``steps + 2`` decreasing times, float64, the last one 0.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    times = torch.linspace(1.0, LAST_TIME, steps + 1, dtype=torch.float64)
    return torch.cat([times, torch.zeros(1, dtype=torch.float64)])
