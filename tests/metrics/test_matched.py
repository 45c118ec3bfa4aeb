"""The error of a perplexity at equal diversity, against its formula."""

import math

import pytest
import torch
from torch import Generator, Tensor

from idlm_ds.metrics.matched import SetFigures, match_perplexity

TOKENS, SLOPE, STEP = 50, 6.0, 0.05
"""Tokens of a sample; rise of the teacher's log-perplexity by diversity; between its two sets."""

TOLERANCE = 0.05
"""Three standard deviations of a standard error from 2,000 resamples."""


def figures(log_ppl: Tensor, diversity: Tensor) -> SetFigures:
    tokens = torch.full((len(log_ppl),), TOKENS)
    return SetFigures(log_ppl * TOKENS, tokens, diversity)


def correlated(count: int, spread: float, tilt: float, rest: float, *, generator: Generator):
    """Deviations of diversity, and of log-perplexity, which follow them by ``tilt``."""
    of_diversity, of_rest = torch.randn(2, count, dtype=torch.float64, generator=generator)
    of_diversity *= spread
    return of_diversity, tilt * of_diversity + rest * of_rest


@pytest.fixture
def sets(generator) -> tuple[SetFigures, SetFigures, SetFigures]:
    """A student, and two sets of a teacher whose samples deviate alike at both temperatures."""
    diversity, log_ppl = correlated(300, 0.14, 2.0, 0.3, generator=generator)
    student = figures(4.4 + log_ppl, 3.88 + diversity)
    diversity, log_ppl = correlated(200, 0.1, 2.0, 0.3, generator=generator)
    near = figures(4.3 + log_ppl, 3.87 + diversity)
    far = figures(4.3 - SLOPE * STEP + log_ppl, 3.87 - STEP + diversity)
    return student, near, far


def logs(each: SetFigures) -> Tensor:
    return each.nats / each.tokens


def error_of_mean(values: Tensor) -> float:
    """What resampling says of a mean: with n, not n - 1."""
    return values.std(correction=0).item() / len(values) ** 0.5


def test_the_perplexity_is_that_of_the_line_at_the_students_diversity(sets, generator):
    student, near, far = sets
    matched = match_perplexity(student, near, far, generator=generator)
    miss = (student.diversity.mean() - near.diversity.mean()).item()
    expected = math.exp(logs(near).mean().item() + SLOPE * miss)
    assert matched.slope == pytest.approx(SLOPE)
    assert matched.gen_ppl.value == pytest.approx(expected)
    own = math.exp(logs(student).mean().item())
    assert matched.difference.value == pytest.approx(own - expected)


def test_the_error_is_the_analytic_one_of_both_models(sets, generator):
    student, near, far = sets
    matched = match_perplexity(student, near, far, generator=generator)
    ppl = matched.gen_ppl.value
    # The reading moves with the teacher across its line, and with the student along it.
    of_teacher = ppl * error_of_mean(logs(near) - SLOPE * near.diversity)
    of_target = ppl * SLOPE * error_of_mean(student.diversity)
    expected = math.hypot(of_teacher, of_target)
    assert matched.gen_ppl.se == pytest.approx(expected, rel=TOLERANCE)
    # Neither part is small: an error without one of them is another number.
    assert max(of_teacher, of_target) < (1 - 2 * TOLERANCE) * expected


def test_the_teachers_samples_are_resampled_alike_at_both_temperatures(sets, generator):
    _, near, far = sets
    middle = (near.diversity.mean() + far.diversity.mean()) / 2
    student = figures(torch.full((50,), 4.0).double(), middle.expand(50))
    matched = match_perplexity(student, near, far, generator=generator)
    # Both sets deviate alike, so their line does, and half way is no better known than its ends.
    expected = matched.gen_ppl.value * error_of_mean(logs(near) - SLOPE * near.diversity)
    assert matched.gen_ppl.se == pytest.approx(expected, rel=TOLERANCE)


def test_the_error_of_the_difference_knows_that_the_student_is_in_both(sets, generator):
    student, near, far = sets
    matched = match_perplexity(student, near, far, generator=generator)
    ppl = matched.gen_ppl.value
    own = matched.difference.value + ppl
    of_student = error_of_mean(own * logs(student) - ppl * SLOPE * student.diversity)
    of_teacher = ppl * error_of_mean(logs(near) - SLOPE * near.diversity)
    expected = math.hypot(of_student, of_teacher)
    assert matched.difference.se == pytest.approx(expected, rel=TOLERANCE)
    apart = math.hypot(own * error_of_mean(logs(student)), matched.gen_ppl.se)
    assert apart > (1 + 2 * TOLERANCE) * expected


def test_a_student_like_its_control_differs_by_nothing(generator):
    diversity, log_ppl = correlated(100, 0.1, 2.0, 0.3, generator=generator)
    near = figures(4.3 + log_ppl, 3.87 + diversity)
    far = figures(4.0 + log_ppl, 3.82 + diversity)
    matched = match_perplexity(near, near, far, generator=generator)
    assert matched.difference.value == 0
    assert matched.difference.se > 0


def test_long_samples_weigh_more(generator):
    near = figures(torch.full((4,), 4.0).double(), torch.full((4,), 3.0).double())
    far = figures(torch.full((4,), 3.0).double(), torch.full((4,), 2.0).double())
    student = SetFigures(
        torch.tensor([10.0, 90.0]).double(),
        torch.tensor([10, 30]),
        torch.tensor([3.0, 3.0]).double(),
    )
    matched = match_perplexity(student, near, far, generator=generator)
    assert matched.difference.value == pytest.approx(math.exp(100 / 40) - math.exp(4.0))


def test_an_error_that_some_resample_does_not_have_is_unknown(generator):
    near = figures(torch.full((4,), 4.0).double(), torch.full((4,), 3.0).double())
    matched = match_perplexity(near, near, near, generator=generator)
    assert math.isnan(matched.gen_ppl.se)


def test_resamples_are_those_of_the_generator(sets):
    one, same, other = (
        match_perplexity(*sets, generator=Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert one == same
    assert one.gen_ppl.value == other.gen_ppl.value
    assert one.gen_ppl.se != other.gen_ppl.se
