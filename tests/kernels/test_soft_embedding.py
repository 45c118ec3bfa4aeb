"""Mean of embeddings, forward and backward, against plain autograd."""

import importlib

import pytest
import torch
from torch import Tensor

from tests.tolerances import CLOSE, assert_close

from .guarded import Guarded
from .plain import derivatives, weights_like
from .scores import KINDS, scores


def mean(raw: Tensor, table: Tensor) -> Tensor:
    weights = (raw - raw.amax(1, keepdim=True)).exp()
    return weights @ table / weights.sum(1, keepdim=True)


@pytest.fixture(autouse=True)
def small_matrices(form, monkeypatch):
    if form == "triton":
        fused = importlib.import_module("idlm_ds.kernels.soft_embedding.triton_impl")
        monkeypatch.setattr(fused, "TILES", dict.fromkeys((2, 4, 8), (4, 32, 8)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_value_and_derivatives(load, kind, dtype, generator):
    for (count, entries, width), layout in (((1, 5, 3), "rows"), ((5, 71, 9), "columns")):
        wide = torch.promote_types(dtype, torch.float32)
        raw = Guarded.of(scores(kind, (count, entries), generator).to(wide), layout)
        table = torch.randn(entries, width, generator=generator).to(dtype)
        pull = weights_like(table[:1].expand(count, width), generator)
        got = derivatives(load("soft_embedding"), [raw.view, table], pull)
        expected = derivatives(mean, [raw.view.double(), table.double()], pull.double())
        assert [x.dtype for x in got] == [dtype, wide, dtype]
        for mine, right in zip(got, expected, strict=True):
            torch.testing.assert_close(mine.double(), right, rtol=CLOSE[dtype], atol=CLOSE[dtype])
        assert raw.is_intact()


def test_a_low_temperature_picks_one_row(load, generator):
    raw = torch.randn(3, 40, generator=generator)
    table = torch.randn(40, 6, generator=generator)
    assert_close(load("soft_embedding")(raw / 1e-3 * 40, table), table[raw.argmax(1)])
