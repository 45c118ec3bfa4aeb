"""The gap of MDLM equals the difference of two cross-entropies, in every form and layout."""

import pytest
import torch
from torch import Tensor

from .guarded import LAYOUTS, Guarded
from .scores import KINDS, SHAPES, assert_near, related_scores


def words(raw: Tensor, mask_id: int) -> Tensor:
    return torch.cat([raw[:, :mask_id], raw[:, mask_id + 1 :]], 1).log_softmax(1)


def gap(student: Tensor, teacher: Tensor, fake: Tensor, weight: Tensor, mask_id: int) -> Tensor:
    target = words(student, mask_id).exp()
    losses = [-(target * words(raw, mask_id)).sum(1) for raw in (teacher, fake)]
    return weight * (losses[0] - losses[1])


def slope_of(student: Tensor, *others: Tensor, mask_id: int) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    nats = gap(student, *others, mask_id)
    (slope,) = torch.autograd.grad(nats.sum(), student)
    return nats.detach(), slope


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_value_and_slope_are_those_of_plain_autograd(load, kind, dtype, generator):
    for (rows, width), layout in zip(SHAPES, (*LAYOUTS, "rows"), strict=True):
        raw = related_scores(kind, (rows, width), generator)
        weight = torch.rand(rows, generator=generator).double()
        mask_id = (width - 1, 0)[rows % 2]
        expected = slope_of(*raw, weight, mask_id=mask_id)
        arrays = [Guarded.of(x.to(dtype), layout) for x in raw]
        nats, slope = load("masked_gap")(*(a.view for a in arrays), weight.to(dtype), mask_id)
        assert nats.dtype == slope.dtype == dtype
        scale = weight.max().item() * max(x.abs().max().item() for x in raw)
        assert_near(nats, expected[0], dtype, scale)
        assert_near(slope, expected[1], dtype, scale * (kind != "usual"))
        assert all(a.is_intact() for a in arrays)


def test_without_its_value_the_slope_is_the_same(load, generator):
    raw = related_scores("usual", (3, 71), generator)
    weight = torch.rand(3, generator=generator).double()
    operator = load("masked_gap")
    _, expected = operator(*(x.clone() for x in raw), weight, 7)
    student, teacher, fake = raw
    share = student.index_fill(1, torch.tensor(7), -torch.inf).softmax(1)
    nats, slope = operator(*(x.clone() for x in raw), weight, 7, with_value=False)
    assert_near(slope, expected, torch.float64)
    assert_near(nats, -weight * (share * (teacher - fake)).sum(1), torch.float64)


def test_equal_networks_leave_no_gap(load, generator):
    student, teacher, _ = related_scores("usual", (3, 71), generator)
    one = torch.ones(3, dtype=torch.float64)
    nats, slope = load("masked_gap")(student, teacher, teacher.clone(), one, 70)
    assert nats.abs().max() < 1e-14
    assert not slope.any()
