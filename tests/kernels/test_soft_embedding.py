"""Mean of a few embeddings, forward and backward, against plain autograd."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tolerances import CLOSE, assert_close

from .guarded import Guarded
from .plain import derivatives, weights_like
from .scores import KINDS, scores

COUNTS = {"one": [1], "ones": [1, 1, 1], "few": [3, 1, 4], "many": [5, 40, 1, 9, 8]}
"""Entries of each position: a tile holds four."""

VOCAB = 11
"""Fewer than the entries of a position with many, which then repeat."""


@pytest.fixture(autouse=True)
def small_blocks(form, monkeypatch):
    if form == "triton":
        fused = importlib.import_module("idlm_ds.kernels.soft_embedding.triton_impl")
        monkeypatch.setattr(fused, "ENTRIES", 4)
        monkeypatch.setattr(fused, "FEATURES", 8)
        monkeypatch.setattr(fused, "launch", fenced(fused.launch))


def fenced(launch: Callable[..., None]) -> Callable[..., None]:
    """Launch kernels on copies with NaN around them, and see that the NaN is still there."""

    def run(kernel: Any, grid: Any, *arguments: Any, **settings: Any) -> None:
        inner = list(arguments)
        fences = {}
        for place, x in enumerate(arguments):
            if isinstance(x, Tensor) and x.is_floating_point():
                fences[place] = Guarded.of(x.detach().reshape(1, -1))
                inner[place] = fences[place].view
        launch(kernel, grid, *inner, **settings)
        for place, fence in fences.items():
            assert fence.is_intact()
            arguments[place].data.copy_(fence.view.view_as(arguments[place]))

    return run


def plain(table: Tensor, ids: Tensor, raw: Tensor, counts: Tensor) -> Tensor:
    pieces = zip(ids.split(counts.tolist()), raw.split(counts.tolist()), strict=True)
    return torch.stack([score.softmax(0) @ table[each] for each, score in pieces])


def mixing(mean: Callable[..., Tensor], ids: Tensor, counts: Tensor) -> Callable[..., Tensor]:
    """Leave only the arguments that have a derivative."""
    return lambda table, raw: mean(table, ids, raw, counts)


def check(load, table: Tensor, ids: Tensor, raw: Tensor, counts: Tensor, pull: Tensor) -> None:
    got = derivatives(mixing(load("soft_embedding"), ids, counts), [table, raw], pull)
    inputs = [table.double(), raw.double()]
    expected = derivatives(mixing(plain, ids, counts), inputs, pull.double())
    assert [x.dtype for x in got] == [table.dtype, table.dtype, raw.dtype]
    close = CLOSE[table.dtype]
    for value, right in zip(got, expected, strict=True):
        torch.testing.assert_close(value.double(), right, rtol=close, atol=close)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", COUNTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_value_and_derivatives(load, kind, case, dtype, generator):
    counts = torch.tensor(COUNTS[case])
    size = int(counts.sum())
    wide = torch.promote_types(dtype, torch.float32)
    raw = scores(kind, (1, size), generator)[0].to(wide)
    ids = torch.randint(VOCAB, (size,), generator=generator)
    for width in (3, 21):
        table = torch.randn(VOCAB, width, generator=generator).to(dtype)
        pull = weights_like(table[:1].expand(len(counts), width), generator)
        check(load, table, ids, raw, counts, pull)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_scores_may_be_large_and_may_be_minus_infinity(load, dtype, generator):
    far = [1e4, 1e4 - 1, -1e4, -1e4, -1e4 - 2, -torch.inf, 3.0, -torch.inf]
    counts, ids = torch.tensor([3, 2, 3]), torch.tensor([4, 0, 1, 2, 2, 3, 10, 3])
    table = torch.randn(VOCAB, 9, generator=generator).to(dtype)
    pull = weights_like(table[:3], generator)
    check(load, table, ids, torch.tensor(far, dtype=dtype), counts, pull)


def test_arguments_may_be_views_and_scores_of_another_precision(load, generator):
    counts = torch.tensor([[2, 0], [6, 0]])[:, 0]
    ids = torch.randint(VOCAB, (8, 2), generator=generator)[:, 1]
    raw = torch.randn(8, 2, generator=generator)[:, 0].bfloat16()
    table = torch.randn(9, VOCAB, generator=generator).T
    pull = torch.randn(1, generator=generator).expand(2, 9)
    got = derivatives(mixing(load("soft_embedding"), ids, counts), [table, raw], pull)
    expected = derivatives(mixing(plain, ids, counts), [table, raw.float()], pull)
    for value, right in zip(got, [*expected[:2], expected[2].bfloat16()], strict=True):
        assert_close(value, right)


def test_a_token_that_repeats_has_the_sum_of_its_shares(load, generator):
    table = torch.randn(VOCAB, 6, generator=generator).double()
    raw = torch.tensor([0.3, -1.0, 2.0, 5.0, 5.0], dtype=torch.float64)
    ids, counts = torch.tensor([7, 2, 7, 1, 1]), torch.tensor([3, 2])
    joined = torch.stack([torch.logaddexp(raw[0], raw[2]), raw[1], raw[3]])
    mean = load("soft_embedding")
    once = mean(table, ids[[0, 1, 3]], joined, torch.tensor([2, 1]))
    assert_close(mean(table, ids, raw, counts), once)
    assert_close(once[1], table[1])


@pytest.mark.parametrize("learned", ["table", "scores"])
def test_only_what_learns_gets_a_derivative(load, learned, generator):
    table = torch.randn(VOCAB, 6, generator=generator).double()
    ids, counts = torch.tensor([7, 2, 7, 1]), torch.tensor([3, 1])
    raw = torch.randn(4, generator=generator).double()
    leaf = {"table": table, "scores": raw}[learned].requires_grad_()
    results = [mean(table, ids, raw, counts) for mean in (load("soft_embedding"), plain)]
    pull = weights_like(results[0], generator)
    assert_close(*(torch.autograd.grad(result, leaf, pull)[0] for result in results))


def test_no_positions_have_no_means(load):
    nothing, ids = torch.empty(0), torch.empty(0, dtype=torch.long)
    assert load("soft_embedding")(torch.randn(VOCAB, 6), ids, nothing, ids).shape == (0, 6)
