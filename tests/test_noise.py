import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from idlm_ds.kernels.long_rows import STRETCH
from idlm_ds.noise import (
    Noise,
    derive_seed,
    draw_categorical,
    stratified_times,
)

from .mixtures import normal
from .tolerances import assert_frequencies, within_standard_errors

ALMOST_ONE = 1 - 2**-53
"""The largest float64 below 1."""


def correlation(x: torch.Tensor, y: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([x, y]))[0, 1].item()


def test_seeds_are_the_same_on_every_machine():
    assert derive_seed(0) == 4761921975702974394
    assert derive_seed(7, "time", 3) == 4771960252679233908


def test_streams_on_a_cpu_are_told_apart_by_32_bits_of_their_seeds():
    one, other, third = Noise([5]), Noise([5 + 2**32]), Noise([5 + 2**31])
    numbers = one.uniform(3, 40)
    assert numbers.equal(other.uniform(3, 40))
    assert not numbers.equal(third.uniform(3, 40))


def test_seeds_are_even_in_the_bits_that_count():
    low = torch.tensor([derive_seed(0, "noise", i) % 2**32 for i in range(4096)])
    assert len(low.unique()) == len(low)
    bits = low[:, None] >> torch.arange(32) & 1
    for share in bits.double().mean(0).tolist():
        assert within_standard_errors(share, 0.5, 0.5 / 4096**0.5)


def test_every_element_of_a_path_matters_and_so_does_its_type():
    paths = [
        (0,),
        (1,),
        (0, 1),
        (0, "1"),
        (0, "noise"),
        (0, "noise", 1),
        (0, "noise", "1"),
        (0, "noise", 2),
        (0, "time", 1),
        (1, "noise", 1),
        (0, 1, "noise"),
        (0, "noise", 1, 2),
        (0, "noise", 2, 1),
        (0, "noise", 12),
    ]
    seeds = {derive_seed(seed, *path) for seed, *path in paths}
    assert len(seeds) == len(paths)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_sequence_has_the_same_stream_in_any_batch():
    together = Noise.of_samples(3, "noise", samples=[4, 9, 5])
    alone = Noise.of_samples(3, "noise", samples=[9])
    for length in (7, 3, 40):
        rows, row = together.uniform(length), alone.uniform(length)
        assert rows.shape == (3, length)
        assert rows[1].equal(row[0])


def test_streams_of_sequences_and_of_uses_are_unrelated():
    first = Noise.of_samples(3, "a", samples=[0, 1]).uniform(5000)
    second = Noise.of_samples(3, "b", samples=[0, 1]).uniform(5000)
    streams = torch.cat([first, second])
    others = torch.corrcoef(streams) - torch.eye(4)
    assert others.abs().max() < 5 / math.sqrt(5000)


def test_draws_of_one_stream_go_on_instead_of_repeating():
    noise = Noise([11])
    assert not noise.uniform(8).equal(noise.uniform(8))


def test_a_copy_goes_on_from_the_same_place_without_moving_the_original():
    def draw(noise: Noise) -> torch.Tensor:
        return torch.cat(
            [noise.uniform(8), normal(noise, 2, 5).view(-1, 10), noise.uniform(1)], dim=1
        )

    noise, undisturbed = Noise([11, 12]), Noise([11, 12])
    assert noise.uniform(3).equal(undisturbed.uniform(3))
    drawn = draw(noise.copy())
    assert draw(noise.copy()).equal(drawn)
    assert draw(noise).equal(drawn)
    assert draw(undisturbed).equal(drawn)
    assert not draw(noise).equal(drawn)


def test_uniform_numbers_are_finer_than_float32():
    numbers = Noise([1]).uniform(100)
    assert numbers.dtype == torch.float64
    assert ((numbers * 2**32).frac() != 0).any()


def test_normal_numbers_are_standard_normal():
    draws = normal(Noise([7]), 400, 500).double().flatten()
    # Ten cells of equal probability, by the inverse of the normal distribution function.
    edges = torch.special.ndtri(torch.linspace(0.1, 0.9, 9, dtype=torch.float64))
    assert_frequencies(torch.bucketize(draws, edges).bincount(minlength=10), torch.full((10,), 0.1))
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        se = math.sqrt(variance / len(draws))
        assert within_standard_errors((draws**power).mean().item(), moment, se)


def test_a_sequence_has_the_same_normal_numbers_in_any_batch():
    together = Noise.of_samples(3, "noise", samples=[4, 9, 5])
    alone = Noise.of_samples(3, "noise", samples=[9])
    for length, width in ((7, 1), (3, 5), (40, 13)):
        rows, row = normal(together, length, width), normal(alone, length, width)
        assert rows.shape == (3 * length, width)
        assert rows[length : 2 * length].equal(row)
        # What else a stream was asked for does not tie it to its neighbours.
        assert together.uniform(2)[1].equal(alone.uniform(2)[0])


def test_normal_numbers_in_blocks_are_those_of_one_call():
    for length, width in ((40, 13), (32, 50), (1, 70)):
        whole = torch.randn(length, width, generator=torch.Generator().manual_seed(8))
        pieces = list(Noise([3, 8]).normal_blocks(length, width))
        assert torch.cat([values for _, values in pieces])[length:].equal(whole)
        covered = [i for rows, _ in pieces for i in range(rows.start, rows.stop)]
        assert covered == list(range(2 * length))


def test_normal_numbers_of_sequences_entries_and_calls_are_unrelated():
    noise = Noise.of_samples(3, "a", samples=[0, 1])
    streams = torch.cat([normal(noise, 2, 5000), normal(noise, 2, 5000)])
    others = torch.corrcoef(streams) - torch.eye(8)
    assert others.abs().max() < 5 / math.sqrt(5000)


@pytest.mark.parametrize(("count", "t_min"), [(1, 1e-3), (6, 0.0), (64, 1e-3), (500, 0.25)])
def test_times_hit_every_stratum_once(count, t_min):
    times = stratified_times(0, "time", 5, count=count, t_min=t_min)
    assert times.dtype == torch.float64
    assert times.min() >= t_min
    assert times.max() <= 1
    strata = ((times - t_min) / (1 - t_min) * count).floor().sort().values
    assert strata.tolist() == list(range(count))


def test_times_are_uniform_inside_their_stratum():
    inside = torch.cat([stratified_times(0, i, count=100, t_min=0.0) * 100 for i in range(100)])
    counts = torch.histc(inside.frac(), bins=10, min=0, max=1)
    assert_frequencies(counts, torch.full((10,), 0.1))


def test_two_draws_of_times_are_tied_only_if_sorted():
    student = stratified_times(0, "student", 0, count=1000, t_min=1e-3)
    again = stratified_times(0, "again", 0, count=1000, t_min=1e-3)
    assert correlation(student.sort().values, again.sort().values) > 0.999
    assert abs(correlation(student, again)) < 5 / math.sqrt(1000)
    assert abs(correlation(student, torch.arange(1000.0).double())) < 5 / math.sqrt(1000)


def test_times_are_a_function_of_their_use_and_of_nothing_else():
    first = stratified_times(0, "time", 5, count=32, t_min=1e-3)
    state = torch.random.get_rng_state()
    torch.rand(3)
    assert stratified_times(0, "time", 5, count=32, t_min=1e-3).equal(first)
    torch.random.set_rng_state(state)
    assert not stratified_times(0, "time", 6, count=32, t_min=1e-3).equal(first)
    assert torch.random.get_rng_state().equal(state)


def test_evenly_spread_numbers_draw_every_entry_in_proportion():
    probs = torch.tensor([0.1, 0.0, 0.45, 0.05, 0.4, 0.0], dtype=torch.float64)
    count = 10_000
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    drawn = draw_categorical(probs.expand(count, -1), uniform)
    counts = drawn.bincount(minlength=6).double()
    torch.testing.assert_close(counts, probs * count, rtol=0, atol=1)


def test_random_numbers_draw_every_entry_at_its_frequency():
    probs = torch.tensor([0.02, 0.3, 0.0, 0.08, 0.6], dtype=torch.float64)
    drawn = draw_categorical(probs.expand(20_000, -1), Noise([5]).uniform(20_000)[0])
    assert_frequencies(drawn.bincount(minlength=5), probs)


def test_rows_need_not_be_normalised(generator):
    probs = torch.rand(200, 7, generator=generator, dtype=torch.float64)
    uniform = torch.rand(200, generator=generator, dtype=torch.float64)
    expected = draw_categorical(probs / probs.sum(-1, keepdim=True), uniform)
    for scale in (1e-30, 0.3, 17.0, 1e30):
        assert draw_categorical(scale * probs, uniform).equal(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 0.1, 3.0, 1e-20])
def test_an_entry_of_probability_zero_is_never_drawn(dtype, scale):
    rows = [
        [0.0, 0.0, 1.0, 0.0],
        [0.0, 0.3, 0.0, 0.7],
        [0.25, 0.0, 0.75, 0.0],
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 1.0],
        [0.1, 0.0, 0.2, 0.0],
    ]
    probs = scale * torch.tensor(rows, dtype=dtype)
    # The edges of the cells themselves, both ends of [0, 1), and a 1 made by rounding.
    edges = [0.0, 5e-324, 1e-300, 0.25, 0.3, 1 / 3, 0.5, 1 - 1e-12, ALMOST_ONE, 1.0]
    for edge in edges:
        drawn = draw_categorical(probs, torch.full((len(rows),), edge, dtype=torch.float64))
        assert (probs.gather(1, drawn[:, None]) > 0).all(), edge


def test_both_ends_of_the_unit_interval_draw_the_outermost_possible_entries():
    probs = torch.tensor([[0.0, 0.2, 0.5, 0.3, 0.0]] * 2, dtype=torch.float64)
    ends = torch.tensor([0.0, ALMOST_ONE], dtype=torch.float64)
    assert draw_categorical(probs, ends).tolist() == [1, 3]


def test_float32_rows_are_summed_in_float64():
    # In float32 the sums 1, 1 + 2^-30, 1 + 2^-29, ... are all 1.
    probs = torch.tensor([[1.0] + [2.0**-30] * 4], dtype=torch.float32)
    total = 1 + 4 * 2.0**-30
    for entry in range(1, 5):
        uniform = torch.tensor([(1 + (entry - 0.5) * 2.0**-30) / total], dtype=torch.float64)
        assert draw_categorical(probs, uniform).tolist() == [entry]


LAYOUTS = {"rows": lambda probs: probs, "columns": lambda probs: probs.t().contiguous().t()}
SIZES = [1, 2, STRETCH - 1, STRETCH, STRETCH + 1, 5 * STRETCH, STRETCH**2, STRETCH**2 + 7, 5000]
layouts = pytest.mark.parametrize("lay", LAYOUTS.values(), ids=LAYOUTS.keys())


def one_by_one(probs: Tensor, uniform: Tensor) -> Tensor:
    """The draw without stretches: the first entry where the sum exceeds a share of the whole."""
    cumulative = probs.double().cumsum(1)
    return (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(1)


def sparse_rows(rows: int, size: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Rows of very uneven weights, of which most are zero, but never all."""
    weights = (6 * torch.randn(rows, size, generator=generator, dtype=torch.float64)).exp()
    weights[torch.rand(rows, size, generator=generator) < 0.7] = 0
    some = torch.randint(size, (rows, 1), generator=generator)
    return weights.scatter(1, some, 1.0).to(dtype)


@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
def test_long_rows_are_drawn_like_short_ones(size, dtype, lay, generator):
    probs = sparse_rows(300, size, dtype, generator)
    uniform = torch.rand(300, generator=generator, dtype=torch.float64)
    drawn, expected = draw_categorical(lay(probs), uniform), one_by_one(probs, uniform)
    # In float32 a point may lie nearer to an edge than the sums of stretches are known.
    differing = (drawn != expected).sum()
    assert differing == 0 if dtype == torch.float64 else differing <= 1


@layouts
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e25])
@pytest.mark.parametrize("size", SIZES)
def test_long_rows_draw_no_impossible_entry(size, scale, dtype, lay, generator):
    probs = lay(scale * sparse_rows(60, size, dtype, generator))
    for edge in (0.0, 5e-324, 1e-300, 0.3, 0.5, 1 - 1e-12, ALMOST_ONE, 1.0):
        drawn = draw_categorical(probs, torch.full((60,), edge, dtype=torch.float64))
        assert (probs.gather(1, drawn[:, None]) > 0).all(), edge


@layouts
@pytest.mark.parametrize("size", SIZES)
def test_a_row_with_all_its_mass_in_one_entry_draws_it(size, lay):
    probs = lay(3e-12 * torch.eye(size)[:: max(size // 400, 1)])
    places = torch.arange(size)[:: max(size // 400, 1)]
    for edge in (0.0, 0.5, ALMOST_ONE):
        assert draw_categorical(probs, torch.full((len(probs),), edge).double()).equal(places)


@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_of_long_rows_are_their_outermost_possible_entries(dtype, lay, generator):
    probs = torch.rand(200, 3000, generator=generator, dtype=dtype) + 0.1
    probs *= torch.rand(200, 3000, generator=generator) < 0.3
    is_possible = (probs > 0).long()
    ends = is_possible.argmax(1), 2999 - is_possible.flip(1).argmax(1)
    for edge, expected in zip((0.0, ALMOST_ONE), ends, strict=True):
        assert draw_categorical(lay(probs), torch.full((200,), edge).double()).equal(expected)


@layouts
def test_long_float32_rows_are_drawn_at_their_frequencies(lay):
    size, count = 3 * STRETCH**2 + 5, 200_000
    probs = torch.linspace(0, 1, size).flip(0)
    probs[::3] = 0
    rows = lay(probs.expand(count // 20, -1))
    drawn = [draw_categorical(rows, Noise([i]).uniform(count // 20)[0]) for i in range(20)]
    cells = torch.cat(drawn) // 10
    expected = torch.zeros(-(-size // 10)).index_add(0, torch.arange(size) // 10, probs)
    assert_frequencies(cells.bincount(minlength=len(expected))[:-2], expected[:-2])


@layouts
@pytest.mark.parametrize("size", [1, 5, STRETCH, 5000])
def test_no_rows_give_no_draws(size, lay):
    assert draw_categorical(lay(torch.empty(0, size)), torch.empty(0)).tolist() == []


def test_tests_run_with_shapes_checked():
    with pytest.raises(TypeCheckError):
        draw_categorical(torch.ones(2, 3), torch.zeros(4))
