"""The temperature whose samples have a given entropy."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from idlm_ds.evaluation.controls import (
    CLOSE_ENOUGH,
    HOTTEST,
    MAX_CORRECTIONS,
    RunEvaluation,
    match,
)

TARGET = 3.86


def matched(entropy: Callable[[float, int], float]) -> tuple[float, list[float]]:
    """What is kept, and the temperatures tried; ``entropy`` takes one and its number."""
    tried: list[float] = []

    def entropy_at(temperature: float) -> float:
        tried.append(temperature)
        return entropy(temperature, len(tried))

    return match(entropy_at, TARGET, 0.85), tried


@pytest.mark.parametrize("slope", [0.5, 0.9, 2.0])
def test_a_straight_line_is_met_by_the_second_secant(slope):
    temperature, tried = matched(lambda t, _: 3.92 + slope * (t - 1))
    assert 3.92 + slope * (temperature - 1) == pytest.approx(TARGET, abs=CLOSE_ENOUGH)
    assert len(tried) <= 3


def test_the_first_try_stands_if_it_is_close():
    temperature, tried = matched(lambda t, _: TARGET + 0.9 * CLOSE_ENOUGH)
    assert tried == [0.85] == [temperature]


@pytest.mark.parametrize("nearest", [1, 2, 3])
def test_of_tries_that_all_miss_the_nearest_is_kept(nearest):
    temperature, tried = matched(
        lambda _, n: TARGET + (2 if n == nearest else -4 * n) * CLOSE_ENOUGH
    )
    assert len(tried) == 1 + MAX_CORRECTIONS
    assert temperature == tried[nearest - 1]


def test_the_search_ends_at_the_hottest_temperature():
    temperature, tried = matched(lambda t, _: 0.1 * t)
    assert tried == [0.85, HOTTEST]
    assert temperature == HOTTEST


def test_a_matched_set_is_the_one_that_the_search_drew(monkeypatch):
    drawn: dict[float, SimpleNamespace] = {}

    def draw(self, network, steps, temperature):
        assert temperature not in drawn
        drawn[temperature] = SimpleNamespace(tokens=torch.arange(8).reshape(2, 4))
        return "cell", drawn[temperature]

    monkeypatch.setattr(RunEvaluation, "_draw", draw)
    evaluation = object.__new__(RunEvaluation)
    temperature, cell, samples = evaluation._draw_matched(None, 8, TARGET, 0.85)
    assert len(drawn) > 1
    assert (cell, samples) == ("cell", drawn[temperature])
