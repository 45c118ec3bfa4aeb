"""The gap of MDLM is the difference of two cross-entropies, in every form and layout."""

import pytest
import torch
from torch import Tensor

from .guarded import Guarded
from .scores import CLOSE, KINDS, assert_near, cases, related_scores, sizes, slope_of


def words(raw: Tensor, mask_id: int) -> Tensor:
    return torch.cat([raw[:, :mask_id], raw[:, mask_id + 1 :]], 1).log_softmax(1)


def gap(student: Tensor, teacher: Tensor, fake: Tensor, weight: Tensor, mask_id: int) -> Tensor:
    target = words(student, mask_id).exp()
    losses = [-(target * words(raw, mask_id)).sum(1) for raw in (teacher, fake)]
    return weight * (losses[0] - losses[1])


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("kind", KINDS)
def test_value_and_slope_are_those_of_plain_autograd(load, kind, dtype, generator):
    for (rows, width), layout in cases():
        raw = related_scores(kind, (rows, width), generator)
        weight = torch.rand(rows, generator=generator).double()
        mask_id = (width - 1, 0)[rows % 2]
        expected, expected_slope = slope_of(gap, *raw, weight, mask_id)
        arrays = [Guarded.of(x.to(dtype), layout) for x in raw]
        nats, slope = load("masked_gap")(*(a.view for a in arrays), weight.to(dtype), mask_id)
        assert nats.dtype == slope.dtype == dtype
        scale = weight * sizes(raw[1])
        assert_near(nats, expected, dtype, scale)
        assert_near(slope, expected_slope, dtype, scale)
        assert not slope[:, mask_id].any()
        assert all(a.is_intact() for a in arrays)


def test_without_its_value_the_slope_is_the_same(load, generator):
    raw = related_scores("usual", (3, 71), generator)
    weight = torch.rand(3, generator=generator).double()
    operator = load("masked_gap")
    _, expected = operator(*(x.clone() for x in raw), weight, 7)
    student, teacher, fake = raw
    share = student.index_fill(1, torch.tensor(7), -torch.inf).softmax(1)
    nats, slope = operator(*(x.clone() for x in raw), weight, 7, with_value=False)
    assert_near(slope, expected, torch.float64, weight)
    assert_near(nats, -weight * (share * (teacher - fake)).sum(1), torch.float64, weight)


def test_equal_networks_leave_no_gap(load, generator):
    student, teacher, _ = related_scores("usual", (3, 71), generator)
    one = torch.ones(3, dtype=torch.float64)
    nats, slope = load("masked_gap")(student, teacher, teacher.clone(), one, 70)
    assert nats.abs().max() < 1e-14
    assert not slope.any()
