"""The vocabulary projection: precision, blocks, and how often it is used."""

import pytest
import torch
from torch import Tensor

from idlm_ds.models.head import Projection, VocabularyHead

from ..tolerances import CLOSE, assert_close

V, WIDTH, EVERY = 37, 8, torch.arange(50)


class Counted(Projection):
    """Counts how often it is used."""

    calls = 0

    def forward(self, *inputs) -> Tensor:
        self.calls += 1
        return super().forward(*inputs)


@pytest.fixture(params=[torch.float32, torch.bfloat16, torch.float64], ids=str)
def head(request, generator) -> VocabularyHead:
    projection = Counted(WIDTH, V).to(request.param)
    hidden = torch.randn(50, WIDTH, generator=generator).to(request.param).requires_grad_()
    return VocabularyHead(lambda positions: hidden[positions], projection)


@pytest.fixture(params=[1, 3, 16, 50, 64])
def size(request, monkeypatch) -> int:
    for module in ("each", "projection"):
        monkeypatch.setattr(f"idlm_ds.kernels.{module}.block_rows", lambda *_: request.param)
    return request.param


def expected(head: VocabularyHead, positions: Tensor) -> Tensor:
    weight, bias = head.projection.weight.double(), head.projection.bias.double()
    return (head.hidden(positions).double() @ weight.T + bias).detach()


def test_results_of_blocks_are_those_of_all_rows_at_once(head, size):
    positions, seen = EVERY.flip(0)[:45], []

    def use(raw: Tensor, at: Tensor, scale: Tensor) -> Tensor:
        seen.append((len(raw), raw.data_ptr()))
        result = torch.stack([raw.double().sum(1) * scale, at.double()], 1)
        # Whatever a caller leaves in the block does not reach the next one.
        raw.fill_(torch.nan)
        return result

    scale = torch.linspace(1, 2, 45, dtype=torch.float64)
    got = head.each(use, positions, positions, scale)
    raw = head.scores(positions).detach()
    assert raw.dtype == torch.promote_types(head.projection.weight.dtype, torch.float32)
    # The products of a block may be added in another order.
    loose = got[:, 0].to(raw.dtype), (raw.double().sum(1) * scale).to(raw.dtype)
    torch.testing.assert_close(*loose, rtol=1e-4, atol=1e-5)
    assert got[:, 1].equal(positions.double())
    assert [rows for rows, _ in seen] == [min(size, 45 - i) for i in range(0, 45, size)]
    # One buffer serves all blocks.
    assert len({place for _, place in seen}) == 1


@pytest.mark.parametrize("count", [0, 1, 50])
def test_the_projection_is_used_once_however_many_positions_there_are(head, size, count):
    got = head.each(
        lambda raw: raw.argmax(1) if len(raw) else raw.new_zeros(0).long(), EVERY[:count]
    )
    assert head.projection.calls == 1
    assert got.shape == (count,)
    assert got.dtype == torch.long


def test_an_empty_block_gives_an_empty_result_of_the_right_kind(head):
    def use(raw: Tensor, rows: Tensor) -> Tensor:
        assert raw.shape == (0, V)
        assert rows.shape == (0, 3)
        return rows.double()

    got = head.each(use, EVERY[:0], torch.zeros(0, 3))
    assert got.shape == (0, 3)
    assert got.dtype == torch.float64


def test_no_graph_leads_out_of_blocks(head):
    with torch.enable_grad():
        got = head.each(lambda raw: raw.sum(1), EVERY)
    assert not got.requires_grad
    assert head.scores(EVERY).requires_grad


def test_scores_are_as_wide_as_float32_and_so_is_their_gradient(head):
    raw = head.scores(EVERY)
    wanted = expected(head, EVERY)
    assert_close(raw.detach(), wanted.to(raw.dtype))
    slope = torch.randn(raw.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight = head.projection.weight
    (got,) = torch.autograd.grad(raw, weight, slope.to(raw.dtype))
    assert got.dtype == weight.dtype
    exact = slope.T @ head.hidden(EVERY).detach().double()
    assert (got.double() - exact).norm() <= CLOSE[weight.dtype] / 2 * exact.norm()


def test_teacher_and_fake_of_16_bits_differ_by_what_their_weights_differ(generator):
    """Scores that are rounded to 16 bits have errors as large as the difference of two networks."""
    vocab_size, width = 2000, 64
    hidden = torch.randn(16, width, generator=generator).bfloat16()
    teacher, fake = Projection(width, vocab_size), Projection(width, vocab_size)
    with torch.no_grad():
        teacher.weight.normal_(std=0.25, generator=generator)
        fake.weight.copy_(teacher.weight)
        fake.weight.add_(1e-4 * torch.randn(fake.weight.shape, generator=generator))
        fake.bias.copy_(teacher.bias)
    heads = [VocabularyHead(lambda p: hidden[p], net.bfloat16()) for net in (teacher, fake)]

    def advantage(raws: list[Tensor]) -> Tensor:
        of_teacher, of_fake = (raw.double().log_softmax(1) for raw in raws)
        return of_teacher - of_fake

    positions = torch.arange(16)
    exact = advantage([expected(head, positions) for head in heads])
    assert 6 < expected(heads[0], positions).abs().max() < 12

    def error(raws: list[Tensor]) -> float:
        return ((advantage(raws) - exact).norm() / exact.norm()).item()

    with torch.no_grad():
        assert error([head.scores(positions) for head in heads]) <= 0.02
        rounded = [head.projection(head.hidden(positions)) for head in heads]
        assert error(rounded) > 0.5
    blocks = [head.each(lambda raw: raw.clone(), positions) for head in heads]
    assert error(blocks) <= 0.02
