"""Score entropies and their slopes, of soft and hard targets, in every form and layout."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from .guarded import Guarded
from .scores import CLOSE, KINDS, assert_near, cases, related_scores, sizes, slope_of
from .test_entropy_gap import scaled, score_entropy


def soft(raw: Tensor, target: Tensor, weight: Tensor, mask_id: int) -> Tensor:
    return weight * score_entropy(scaled(raw, mask_id), scaled(target, mask_id).softmax(1))


def hard(raw: Tensor, target: Tensor, weight: Tensor, mask_id: int) -> Tensor:
    certain = F.one_hot(target, raw.shape[1]).double()
    kept = torch.cat([certain[:, :mask_id], certain[:, mask_id + 1 :]], 1)
    return weight * score_entropy(scaled(raw, mask_id), kept)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("kind", KINDS)
def test_soft_targets(load, kind, dtype, generator):
    for (rows, width), layout in cases():
        target, raw, _ = related_scores(kind, (rows, width), generator)
        weight = torch.rand(rows, generator=generator).double()
        mask_id = (width - 1, 0)[rows % 2]
        expected, expected_slope = slope_of(soft, raw, target, weight, mask_id)
        arrays = [Guarded.of(x.to(dtype), layout) for x in (raw, target)]
        operator = load("entropy_loss", "soft_score_entropy")
        nats, slope = operator(*(a.view for a in arrays), weight.to(dtype), mask_id)
        assert nats.dtype == slope.dtype == dtype
        ratios = scaled(raw, mask_id).exp().sum(1)
        assert_near(nats, expected, dtype, weight * (sizes(raw) + ratios))
        assert_near(slope, expected_slope, dtype, weight * (1 + ratios))
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
        operator = load("entropy_loss", "hard_score_entropy")
        nats, slope = operator(array.view, target, weight.to(dtype), mask_id)
        assert nats.dtype == slope.dtype == dtype
        ratios = scaled(raw, mask_id).exp().sum(1)
        assert_near(nats, expected, dtype, weight * (sizes(raw) + ratios))
        assert_near(slope, expected_slope, dtype, weight * (1 + ratios))
        assert not slope[:, mask_id].any()
        assert slope.data_ptr() == array.view.data_ptr()
        assert array.is_intact()
