"""Sums, maxima and softmax of long rows against the plain forms."""

import math

import pytest
import torch
from torch import Tensor

from idlm_ds.kernels.long_rows import PANEL, STRETCH, Softmax, argmax, in_parts, row_sums
from idlm_ds.noise import draw_categorical

from ..tolerances import assert_close, assert_frequencies

LAYOUTS = {"rows": lambda values: values, "columns": lambda values: values.t().contiguous().t()}
SIZES = [1, 2, STRETCH, 5 * STRETCH + 3, STRETCH**2, PANEL // 100 + 11]
layouts = pytest.mark.parametrize("lay", LAYOUTS.values(), ids=LAYOUTS.keys())
sizes = pytest.mark.parametrize("size", SIZES)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def scores(rows: int, size: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Uneven scores of which some are forbidden, but not all of a row."""
    raw = 4 * torch.randn(rows, size, generator=generator, dtype=torch.float64)
    raw[torch.rand(rows, size, generator=generator) < 0.2] = -math.inf
    raw[:, size // 2] = 1.0
    return raw.to(dtype)


@layouts
def test_sums_of_float32_rows_are_as_near_as_promised(lay, generator):
    probs = (5 * torch.randn(64, 40_000, generator=generator)).exp()
    exact = probs.double().sum(1)
    bound = (STRETCH - 1) * 2.0**-24
    assert bound < 2e-6
    assert ((row_sums(lay(probs)) - exact).abs() <= bound * exact).all()
    stretches = probs.view(64, -1, STRETCH)[:, :50]
    sums = torch.stack([row_sums(lay(part)) for part in stretches.unbind(1)], 1)
    exact = stretches.double().sum(2)
    assert ((sums - exact).abs() <= bound * exact).all()


@layouts
@dtypes
@sizes
def test_the_largest_entry_is_the_first_of_equals(size, dtype, lay, generator):
    raw = torch.randint(0, 5, (70, size), generator=generator).to(dtype)
    assert argmax(lay(raw)).equal((raw == raw.amax(1, keepdim=True)).long().argmax(1))
    assert Softmax.of(lay(raw)).best().equal(argmax(raw))


@layouts
@sizes
@pytest.mark.parametrize("temperature", [1.0, 0.25, 3.0])
def test_probabilities_are_those_of_the_plain_softmax(size, temperature, lay, generator):
    raw = scores(70, size, torch.float64, generator)
    expected = (raw / temperature).softmax(1)
    answer = Softmax.of(lay(raw), temperature)
    for ids in (torch.arange(70) % size, torch.full((70,), size // 2), answer.best()):
        picked = expected.gather(1, ids[:, None])[:, 0]
        assert_close(answer.probs_at(ids), picked)
        assert_close(answer.log_probs_at(ids).exp(), picked)
    uniform = torch.rand(70, generator=generator, dtype=torch.float64)
    assert answer.draw(uniform).equal(draw_categorical(expected, uniform))


@layouts
def test_probabilities_of_float32_scores_are_as_near_as_promised(lay, generator):
    raw = scores(100, 30_000, torch.float32, generator)
    exact, answer = raw.double().softmax(1), Softmax.of(lay(raw))
    stretches = exact[:, : 30_000 // STRETCH * STRETCH].unflatten(1, (-1, STRETCH)).sum(2)
    shares = answer.sums[:, : stretches.shape[1]] / answer.sums.sum(1, keepdim=True)
    assert (shares - stretches).abs().sum(1).max() / 2 < 1e-6
    ids = torch.full((100,), 15_000)
    expected = exact[:, 15_000].log()
    assert (answer.log_probs_at(ids) - expected).abs().max() < 2e-6


@layouts
@dtypes
def test_what_a_sure_answer_lacks_of_certainty_is_known_exactly(dtype, lay):
    raw = torch.zeros(4, 1000, dtype=dtype)
    raw[:, 700] = torch.tensor([20.0, 40.0, 60.0, 80.0], dtype=dtype)
    expected = -torch.log1p(999 * torch.exp(-raw[:, 700].double()))
    got = Softmax.of(lay(raw)).log_probs_at(torch.full((4,), 700))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)


@layouts
@dtypes
@pytest.mark.parametrize("temperature", [1e-9, 1.0, 1e9])
@sizes
def test_what_is_forbidden_is_never_drawn(size, temperature, dtype, lay, generator):
    raw = scores(60, size, dtype, generator)
    # Whole panels without anything to draw.
    raw[:30, : size // 2] = -math.inf
    raw[30:, size // 2 + 1 :] = -math.inf
    for edge in (0.0, 5e-324, 0.5, 1 - 2**-53, 1.0):
        answer = Softmax.of(lay(raw), temperature)
        drawn = answer.draw(torch.full((60,), edge, dtype=torch.float64))
        assert raw.gather(1, drawn[:, None]).isfinite().all(), edge


@layouts
@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_draws_have_their_frequencies_wherever_scores_lie(shift, lay):
    size, count = 2000, 50_000
    row = torch.linspace(0, 3, size).sin()
    raw = lay((row + shift).expand(count // 50, -1))
    drawn = []
    for seed in range(50):
        uniform = torch.rand(
            count // 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        drawn.append(Softmax.of(raw).draw(uniform))
    probs = raw[0].double().softmax(0).view(100, -1).sum(1)
    assert_frequencies((torch.cat(drawn) // 20).bincount(minlength=100), probs)


@layouts
@sizes
def test_no_rows_have_no_answers(size, lay):
    nothing = torch.empty(0)
    answer = Softmax.of(lay(torch.empty(0, size)))
    assert answer.draw(nothing).shape == answer.best().shape == (0,)
    assert answer.probs_at(answer.best()).shape == (0,)


def test_scores_are_only_read(generator):
    raw = scores(5, 100, torch.float32, generator)
    before = raw.clone()
    Softmax.of(raw, 0.5).log_probs_at(Softmax.of(raw).best())
    assert raw.equal(before)


def test_parts_cover_all_rows_in_order_and_none_are_one_part(monkeypatch):
    monkeypatch.setattr("idlm_ds.kernels.long_rows.PART", 30)
    values, index, seen = torch.rand(8, 10), torch.arange(8), []

    def use(rows: Tensor, index: Tensor) -> Tensor:
        seen.append(len(rows))
        return rows.sum(1) + index

    assert in_parts(use, values, index).equal(values.sum(1) + index)
    assert in_parts(use, values[:0], index[:0]).shape == (0,)
    assert seen == [3, 3, 2, 0]
