"""Cross-entropies and their slopes, of soft and hard targets, in every form and layout."""

import pytest
import torch
from torch import Tensor

from .guarded import Guarded
from .scores import CLOSE, KINDS, assert_near, cases, related_scores, sizes, slope_of
from .test_masked_gap import words


def soft(raw: Tensor, target: Tensor, weight: Tensor, mask_id: int) -> Tensor:
    return -weight * (words(target, mask_id).exp() * words(raw, mask_id)).sum(1)


def hard(raw: Tensor, target: Tensor, weight: Tensor, mask_id: int) -> Tensor:
    allowed = raw.index_fill(1, torch.tensor(mask_id), -torch.inf)
    return -weight * allowed.log_softmax(1).gather(1, target[:, None])[:, 0]


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("kind", KINDS)
def test_soft_targets(load, kind, dtype, generator):
    for (rows, width), layout in cases():
        target, raw, _ = related_scores(kind, (rows, width), generator)
        weight = torch.rand(rows, generator=generator).double()
        mask_id = (width - 1, 0)[rows % 2]
        expected, expected_slope = slope_of(soft, raw, target, weight, mask_id)
        arrays = [Guarded.of(x.to(dtype), layout) for x in (raw, target)]
        operator = load("masked_loss", "soft_cross_entropy")
        nats, slope = operator(*(a.view for a in arrays), weight.to(dtype), mask_id)
        assert nats.dtype == slope.dtype == dtype
        assert_near(nats, expected, dtype, weight * sizes(raw))
        assert_near(slope, expected_slope, dtype, weight)
        assert not slope[:, mask_id].any()
        assert slope.data_ptr() == arrays[0].view.data_ptr()
        assert all(a.is_intact() for a in arrays)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("kind", KINDS)
def test_hard_targets(load, kind, dtype, generator):
    for (rows, width), layout in cases():
        raw, *_ = related_scores(kind, (rows, width), generator)
        weight = torch.rand(rows, generator=generator).double()
        mask_id = (width - 1, 0)[rows % 2]
        target = torch.randint(1, width - 1, (rows,), generator=generator)
        expected, expected_slope = slope_of(hard, raw, target, weight, mask_id)
        array = Guarded.of(raw.to(dtype), layout)
        operator = load("masked_loss", "hard_cross_entropy")
        nats, slope = operator(array.view, target, weight.to(dtype), mask_id)
        assert nats.dtype == slope.dtype == dtype
        assert_near(nats, expected, dtype, weight * sizes(raw))
        assert_near(slope, expected_slope, dtype, weight)
        assert not slope[:, mask_id].any()
        assert slope.data_ptr() == array.view.data_ptr()
        assert array.is_intact()
