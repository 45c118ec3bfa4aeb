"""Modulated norm and gated residual, forward and backward, against plain autograd."""

import pytest
import torch
from torch import Tensor

from tests.tolerances import assert_close

from .plain import derivatives, weights_like

CASES = [(2, 5, 7), (1, 1, 16), (2, 20, 33)]
"""Sequences, positions and width: odd ones, a single row, more rows than a program sums."""


def norm(x: Tensor) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    return centered / ((centered**2).mean(-1, keepdim=True) + 1e-5).sqrt()


def plain_modulate(x: Tensor, weight: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return norm(x) * weight * (1 + scale) + shift


def plain_add(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    return x + gate * y


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_modulate(load, case, dtype, generator):
    batch, length, width = case
    condition = torch.randn(batch, 1, 6 * width, generator=generator).to(dtype)
    shift, scale = condition.chunk(6, -1)[1:3]
    x = (3 * torch.randn(case, generator=generator) + 1).to(dtype)
    inputs = [x, torch.randn(width, generator=generator).to(dtype), shift, scale]
    pull = weights_like(x, generator)
    got = derivatives(load("modulate"), inputs, pull)
    expected = derivatives(plain_modulate, [t.double() for t in inputs], pull.double())
    for value, right in zip(got, expected, strict=True):
        assert value.dtype == dtype
        assert_close(value, right.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_add_gated(load, case, dtype, generator):
    batch, _, width = case
    gate = torch.randn(batch, 1, 6 * width, generator=generator).to(dtype).chunk(6, -1)[2]
    x, y = (torch.randn(case, generator=generator).to(dtype) for _ in range(2))
    pull = weights_like(x, generator)
    got = derivatives(load("modulate", "add_gated"), [x, gate, y], pull)
    expected = derivatives(plain_add, [t.double() for t in (x, gate, y)], pull.double())
    for value, right in zip(got, expected, strict=True):
        assert value.dtype == dtype
        assert_close(value, right.to(dtype))


def test_a_condition_may_have_a_row_for_every_hidden_state(load, generator):
    x, shift, scale = (torch.randn(5, 12, generator=generator).double() for _ in range(3))
    inputs = [x, torch.randn(12, generator=generator).double(), shift, scale]
    pull = weights_like(x, generator)
    got = derivatives(load("modulate"), inputs, pull)
    for value, right in zip(got, derivatives(plain_modulate, inputs, pull), strict=True):
        assert_close(value, right)


def test_hidden_states_may_be_a_view(load, generator):
    whole = torch.randn(2, 6, 16, generator=generator).double()
    shift, scale = (torch.randn(2, 1, 8, generator=generator).double() for _ in range(2))
    one, x = torch.ones(8).double(), whole[:, ::2, 8:]
    pull = weights_like(x, generator).expand(2, 3, 8)
    got = derivatives(load("modulate"), [x, one, shift, scale], pull)
    expected = derivatives(plain_modulate, [x, one, shift, scale], pull)
    for value, right in zip(got, expected, strict=True):
        assert_close(value, right)
