"""Products with the vocabulary projection: layouts, block sizes, precision, gradients."""

import pytest
import torch
import torch.nn.functional as F

from idlm_ds.kernels import learn, projection
from idlm_ds.kernels.learn import back_project, learn_rows
from idlm_ds.kernels.projection import ScoreRows, block_rows, blocks, first_rows, project

P, D, V = 11, 6, 29
CPU, GPU = torch.device("cpu"), torch.device("cuda")
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-5}
"""Of scores; those of 16-bit operands are float32."""


@pytest.fixture(autouse=True)
def several_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (projection, learn):
        monkeypatch.setattr(module, "PANEL", 8)


def operands(dtype: torch.dtype, generator: torch.Generator) -> list[torch.Tensor]:
    shapes = ((P, D), (V, D), (V,))
    made = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    return [tensor.requires_grad_() for tensor in made]


def assert_near(gradient: torch.Tensor, right: torch.Tensor) -> None:
    """Gradients are multiplied and kept in the precision of the operands."""
    tolerance = 3e-2 if gradient.dtype == torch.bfloat16 else CLOSE[gradient.dtype]
    torch.testing.assert_close(gradient.double(), right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("index", [slice(2, 7), slice(0, P), slice(0, 0), torch.tensor([9, 0, 3])])
def test_scores_of_some_rows_are_those_of_a_linear_layer(dtype, index, generator):
    hidden, weight, bias = operands(dtype, generator)
    rows = ScoreRows(hidden, weight, bias)
    wanted = F.linear(hidden.double(), weight.double(), bias.double())[index].detach()
    for out in (None, rows.buffer(P)):
        got = rows.scores(index, out)
        assert got.dtype == rows.dtype == torch.promote_types(dtype, torch.float32)
        assert not got.requires_grad
        torch.testing.assert_close(got.double(), wanted, rtol=0, atol=CLOSE[dtype])


def test_a_row_of_a_cpu_buffer_is_a_column_in_memory_also_where_it_is_not_full(generator):
    rows = ScoreRows(*operands(torch.float32, generator))
    buffer = rows.buffer(P)
    for count in (1, 4, P):
        part = first_rows(buffer, count)
        assert part.shape == (count, V)
        assert part.t().is_contiguous()
        assert part.data_ptr() == buffer.data_ptr()
    row_major = torch.empty(P, V)
    assert first_rows(row_major, 4).is_contiguous()


@pytest.mark.parametrize("vocab_size", [2, 2049, 50_258, 126_464, 10**7])
@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_blocks_are_neither_large_nor_thin(vocab_size, device):
    rows, kind = block_rows(vocab_size, device), device.type
    least, most = projection.LEAST_ROWS[kind], projection.MOST_ROWS[kind]
    assert least <= rows <= most
    assert rows == least or rows * vocab_size <= projection.BUFFER[kind]
    pieces = list(blocks(3 * rows + 1, rows))
    assert [piece.stop - piece.start for piece in pieces] == [rows, rows, rows, 1]


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("frozen", [None, 0, 1, 2])
def test_a_projection_of_all_rows_passes_gradients_to_what_learns(dtype, frozen, generator):
    inputs = operands(dtype, generator)
    if frozen is not None:
        inputs[frozen].requires_grad_(False)
    direction = torch.randn(P, V, generator=generator)
    project(*inputs).mul(direction).sum().backward()
    exact = [x.detach().double().requires_grad_() for x in inputs]
    F.linear(*exact).mul(direction).sum().backward()
    for k, (value, right) in enumerate(zip(inputs, exact, strict=True)):
        assert (value.grad is None) == (k == frozen)
        if k != frozen:
            tolerance = 3e-2 if dtype == torch.bfloat16 else CLOSE[dtype]
            torch.testing.assert_close(
                value.grad.double(), right.grad, rtol=tolerance, atol=tolerance
            )


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_a_loss_of_blocks_passes_the_gradients_of_whole_rows(dtype, generator):
    """The loss is half the square of a row; its slope is the row."""
    inputs = operands(dtype, generator)

    def half_square(raw: torch.Tensor, piece: slice) -> tuple[torch.Tensor, torch.Tensor]:
        assert raw.dtype == torch.promote_types(dtype, torch.float32)
        return raw.square().sum(1) / 2, raw

    total = learn_rows(*inputs, list(blocks(P, 4)), half_square)
    (3 * total).backward()
    exact = [x.detach().double().requires_grad_() for x in inputs]
    wanted = F.linear(*exact).square().sum() / 2
    (3 * wanted).backward()
    torch.testing.assert_close(total, wanted, rtol=1e-5, atol=0)
    for value, right in zip(inputs, exact, strict=True):
        assert value.grad.dtype == dtype
        assert_near(value.grad, right.grad)


def test_slopes_are_taken_back_in_panels(generator):
    slope, weight = torch.randn(P, V, generator=generator), torch.randn(V, D, generator=generator)
    out = torch.empty(P, D, dtype=torch.bfloat16)
    back_project(slope, weight.bfloat16(), out=out)
    torch.testing.assert_close(out, (slope @ weight.bfloat16().float()).bfloat16())
