"""Rotary embedding against a rotation of complex numbers."""

import pytest
import torch
from torch import Tensor

from idlm_ds.models.rotary import rotary_angles
from tests.tolerances import assert_close

from .plain import derivatives, weights_like


def plain_rope(angle: Tensor, x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(
        torch.ones_like(angle), angle
    )
    return torch.cat([turned.real, turned.imag], -1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("length", "width"), [(1, 2), (33, 6), (5, 32)])
def test_pairs_turn_by_the_angle_of_their_position(load, length, width, dtype, generator):
    # Queries as a view of one product, as attention has them.
    qkv = torch.randn(2, length, 3, 3, width, generator=generator).to(dtype)
    q = qkv.permute(2, 0, 3, 1, 4)[1]
    cos, sin = rotary_angles(length, width, device=torch.device("cpu"))
    pull = weights_like(q, generator).transpose(1, 2).contiguous().transpose(1, 2)
    got = derivatives(lambda x: load("rope")(x, cos, sin), [q], pull)
    angle = torch.atan2(sin.double(), cos.double())
    expected = derivatives(lambda x: plain_rope(angle, x), [q.double()], pull.double())
    for value, right in zip(got, expected, strict=True):
        assert value.dtype == dtype
        # Cosines are float32 in any case.
        precision = torch.float32 if dtype == torch.float64 else dtype
        assert_close(value.to(precision), right.to(precision))
