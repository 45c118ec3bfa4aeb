"""The teacher at the diversity of the student."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from idlm_ds.evaluation.cell import Cell
from idlm_ds.evaluation.draw import SampleSet
from idlm_ds.evaluation.matching import (
    COLDEST,
    DISTINCT_2,
    ENTROPY,
    HOTTEST,
    MAX_CORRECTIONS,
    SLOPE_REACHES,
    Diversity,
    JudgedSet,
    TemperatureTries,
    extend,
    match,
    neighbour,
    verdict,
)
from idlm_ds.evaluation.score import Scores
from idlm_ds.metrics.accumulate import Estimate

CLOSE_ENOUGH, REACH = ENTROPY.close, ENTROPY.reach
STEP = SLOPE_REACHES * REACH
TARGET = 3.86


def matched(entropy: Callable[[float, int], float]) -> tuple[float, list[float]]:
    """What is kept, and the temperatures tried; ``entropy`` takes one and its number."""
    tried: list[float] = []

    def entropy_at(temperature: float) -> float:
        tried.append(temperature)
        return entropy(temperature, len(tried))

    return match(entropy_at, TARGET, 0.85, diversity=ENTROPY), tried


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


def extended(levels: dict[float, float], level_at: Callable[[float], float]) -> str | None:
    """Why a target is out of reach; ``levels`` receives what was tried."""
    return extend(level_at, TARGET, levels, diversity=ENTROPY, reach=REACH)


def test_a_near_set_with_a_neighbour_is_enough():
    levels = {0.9: TARGET - 0.9 * REACH, 1.0: TARGET - 0.9 * REACH + 1.01 * STEP}
    assert extended(dict(levels), never) is None


def never(temperature: float) -> float:
    raise AssertionError(f"drawn at {temperature}")


@pytest.mark.parametrize("miss", [0.004, -0.004])
def test_a_lone_near_set_gets_a_colder_neighbour(miss):
    levels = {0.9: TARGET + miss}
    assert extended(levels, lambda t: TARGET + miss + 0.9 * (t - 0.9)) is None
    assert min(levels) < 0.9
    assert neighbour(levels, TARGET, REACH) != 0.9


@pytest.mark.parametrize("start", [0.5, 1.5])
def test_a_target_that_is_far_off_is_aimed_at(start):
    levels = {0.9: TARGET + 0.9 * (0.9 - start), 1.0: TARGET + 0.9 * (1.0 - start)}
    assert extended(levels, lambda t: TARGET + 0.9 * (t - start)) is None
    assert len(levels) == 3
    assert levels[list(levels)[-1]] == pytest.approx(TARGET)


@pytest.mark.parametrize(("side", "limit"), [(1, HOTTEST), (-1, COLDEST)])
def test_what_no_temperature_reaches_is_said(side, limit):
    levels = {1.0: TARGET - side}
    why_not = extended(levels, lambda t: TARGET - side + 0.1 * (t - 1))
    assert list(levels) == [1.0, limit]
    assert "is too far from the student's 3.86" in why_not


def test_no_slope_is_read_from_sets_that_temperature_does_not_change():
    levels = {1.0: TARGET}
    assert "too flat" in extended(levels, lambda t: TARGET)
    assert len(levels) == 2


def test_the_neighbour_is_the_nearest_set_that_is_a_step_away():
    levels = {0.7: 3.7, 0.9: 3.8, 0.95: 3.862, 0.97: 3.87, 1.0: 3.93}
    assert neighbour(levels, TARGET, REACH) == 0.9
    assert neighbour({1.0: TARGET, 1.05: TARGET + 0.9 * STEP}, TARGET, REACH) is None


FIRST_TOKEN = replace(ENTROPY, of=lambda tokens: tokens[:, 0].double() / 1e9)
"""A diversity that is written into the sample, in billionths."""

SPREAD = torch.tensor([-12, -9, -3, -1, 1, 2, 5, 17]) * 10**6
"""Of the samples' billionths around their mean."""


def judged(level: float, log_ppl: float, tokens: int = 10, steps: int = 8) -> JudgedSet:
    """A set with a diversity and a perplexity, both exact."""
    cell = Cell(
        model="teacher",
        source=None,
        family="mdlm",
        sampler="ancestral",
        steps=steps,
        precision="float64",
        temperature=1.0,
        nucleus=1.0,
        seed=0,
        num_samples=8,
        length=2,
        tokenizer="t",
    )
    ids = torch.stack([round(1e9 * level) + SPREAD, SPREAD.abs()], 1)
    samples = SampleSet(tokens=ids, texts=[""] * 8, nfe=8.0, seconds=1.0, machine={})
    scores = Scores(torch.full((8,), log_ppl * tokens).double(), torch.full((8,), tokens))
    return JudgedSet(cell, samples, scores)


def teacher(temperature: float) -> JudgedSet:
    """Diversity 4 at temperature 1, with a slope of 1; log-perplexity 3 with a slope of 5."""
    return judged(3 + temperature, 3 + 5 * (temperature - 1))


def compared(student: JudgedSet, diversity: Diversity = FIRST_TOKEN, guess: float = 0.85) -> Any:
    drawn: list[float] = []

    def draw(temperature: float) -> JudgedSet:
        assert temperature not in drawn
        drawn.append(temperature)
        return teacher(temperature)

    tries = TemperatureTries(draw)
    tries.search(diversity, student.level(diversity), guess)
    return (*tries.compare(diversity, student, seed=1), drawn)


def test_the_perplexity_of_the_row_is_read_off_at_the_students_diversity():
    nearest, columns, drawn = compared(judged(3.9, 2.0))
    assert nearest.level(FIRST_TOKEN) == pytest.approx(3.9, abs=FIRST_TOKEN.close)
    assert columns["gen_ppl"] == pytest.approx(math.exp(3 - 5 * 0.1))
    assert columns["gen_ppl_slope"] == pytest.approx(5.0)
    assert columns["student_minus_matched"] == pytest.approx(math.exp(2.0) - math.exp(2.5))
    assert columns["verdict"] == "below"
    assert columns["not_matched"] is None
    assert (columns["matched_in"], columns["matched_to_steps"]) == ("entropy", 8)
    assert columns["temperatures_tried"] == sorted(drawn)
    # The student's diversity and the teacher's have the same spread, and nothing else has any.
    error = SPREAD.double().std(correction=0).item() / 1e9 / 8**0.5
    expected = columns["gen_ppl"] * 5 * math.hypot(error, error)
    assert columns["gen_ppl_se"] == pytest.approx(expected, rel=0.05)
    assert columns["student_minus_matched_se"] == pytest.approx(columns["gen_ppl_se"])


def test_a_match_at_the_first_try_draws_one_more_set_for_the_slope():
    _, columns, drawn = compared(judged(3.851, 2.25))
    assert len(drawn) == 2
    assert columns["gen_ppl_slope"] == pytest.approx(5.0)
    assert columns["verdict"] == "level"


def test_a_second_match_takes_the_sets_of_the_first():
    student, tries = judged(3.9, 2.0), TemperatureTries(teacher)
    tries.search(FIRST_TOKEN, 3.9, 0.85)
    _, first = tries.compare(FIRST_TOKEN, student, seed=1)
    before = len(tries.sets)
    _, second = tries.compare(FIRST_TOKEN, student, seed=1)
    assert len(tries.sets) == before
    assert first == second


def test_a_student_out_of_reach_has_a_reason_and_no_figure():
    _, columns, drawn = compared(judged(1.5, 2.0))
    assert drawn[-1] == COLDEST
    assert "too far from the student's 1.5" in columns["not_matched"]
    blank = ("gen_ppl", "gen_ppl_se", "student_minus_matched", "student_minus_matched_se")
    assert all(columns[key] is None for key in (*blank, "verdict", "gen_ppl_slope"))


@pytest.mark.parametrize("tokens", [0, 1])
def test_sets_that_have_no_error_have_a_reason(tokens):
    student = judged(3.9, 2.0)
    student.scores.tokens[:] = torch.tensor([tokens] + [0] * 7)
    _, columns, _ = compared(student)
    assert columns["gen_ppl"] is None
    assert "scored token" in columns["not_matched"]


def test_distinct_bigrams_are_matched_by_the_share_of_the_set():
    tokens = torch.tensor([[0, 1, 2], [0, 1, 3], [4, 4, 4]])
    assert DISTINCT_2.of(tokens).mean().item() == pytest.approx(4 / 6)
    assert DISTINCT_2.of(tokens[:, :1]).mean().item() == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("value", "word"),
    [(-2.1, "below"), (-1.9, "level"), (0.0, "level"), (1.9, "level"), (2.1, "above")],
)
def test_two_standard_errors_make_a_difference(value, word):
    assert verdict(Estimate(3 * value, 3.0, 8)) == word
