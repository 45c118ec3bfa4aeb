"""Values and derivatives of operators on hidden states."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor


def weights_like(x: Tensor, generator: Generator) -> Tensor:
    """Draw what a result is multiplied by before it is summed."""
    return torch.randn(x.shape, generator=generator).to(x.dtype)


def derivatives(
    operator: Callable[..., Tensor], inputs: Sequence[Tensor], pull: Tensor
) -> list[Tensor]:
    """Return the result of an operator, and what ``pull`` becomes at each input."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    result = operator(*leaves)
    return [result.detach(), *torch.autograd.grad(result, leaves, pull.to(result.dtype))]
