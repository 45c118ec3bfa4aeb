"""The teacher's temperature that gives it a student's entropy."""

from collections.abc import Callable

import pytest

from idlm_ds.evaluation.controls import CLOSE_ENOUGH, MAX_CORRECTIONS, Evaluation, Measured
from idlm_ds.evaluation.row import Row

TARGET = 3.86


def matched(
    monkeypatch: pytest.MonkeyPatch, entropy: Callable[[float, int], float]
) -> tuple[Row, list[float]]:
    """What is kept, and the temperatures tried; ``entropy`` stands in for drawing a set."""
    tried: list[float] = []

    def sample(self, model, denoiser, steps, temperature=1.0):
        tried.append(temperature)
        row = Row(
            model=model,
            steps=steps,
            nfe=None,
            sampler="ancestral",
            precision="float64",
            temperature=temperature,
            gen_ppl=1.0,
            gen_ppl_se=0.0,
            entropy=entropy(temperature, len(tried)),
            entropy_se=0.0,
            distinct_2=1.0,
            seconds=None,
            num_samples=2,
            judge="none",
            seed=0,
        )
        return Measured(row, [])

    monkeypatch.setattr(Evaluation, "sample", sample)
    evaluation = object.__new__(Evaluation)
    return evaluation.match(None, 8, TARGET, 0.85).row, tried


@pytest.mark.parametrize("slope", [0.5, 0.9, 2.0])
def test_a_straight_line_is_met_by_the_second_secant(monkeypatch, slope):
    row, tried = matched(monkeypatch, lambda t, _: 3.92 + slope * (t - 1))
    assert row.entropy == pytest.approx(TARGET, abs=CLOSE_ENOUGH)
    assert len(tried) <= 3


def test_the_first_try_stands_if_it_is_close(monkeypatch):
    row, tried = matched(monkeypatch, lambda t, _: TARGET + 0.9 * CLOSE_ENOUGH)
    assert tried == [0.85] == [row.temperature]


@pytest.mark.parametrize("nearest", [1, 2, 3])
def test_of_tries_that_all_miss_the_nearest_is_kept(monkeypatch, nearest):
    row, tried = matched(
        monkeypatch, lambda _, n: TARGET + (2 if n == nearest else -4 * n) * CLOSE_ENOUGH
    )
    assert len(tried) == 1 + MAX_CORRECTIONS
    assert row.temperature == tried[nearest - 1]
    assert row.entropy == pytest.approx(TARGET + 2 * CLOSE_ENOUGH)
