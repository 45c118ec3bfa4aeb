"""Perplexity of a model at the diversity of another one, with the error of that match.

A teacher is drawn at several temperatures, and its log-perplexity is read off at the student's
diversity. Both the reading and the diversity at which it is taken are estimates; resampling the
samples of both models together gives the error of the whole.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Generator, Tensor

from idlm_ds.metrics.accumulate import Estimate

RESAMPLES = 2000
"""Resampled sets; the standard error itself is then good to 2 %."""

MIDDLE = (0.158655, 0.841345)
"""Between these quantiles lie two standard errors of a normal distribution."""


@dataclass(frozen=True, slots=True)
class SetFigures:
    """What is known of each sample of a set."""

    nats: Float64[Tensor, " N"]
    tokens: Int64[Tensor, " N"]
    """Scored tokens."""

    diversity: Float64[Tensor, " N"]
    """Values whose mean is the diversity of the set and whose spread gives its error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchedPerplexity:
    """A teacher at the student's diversity, and the student's lead or lag."""

    gen_ppl: Estimate
    """Of the teacher; the error includes that of the student's diversity."""

    difference: Estimate
    """Perplexity of the student minus that of the teacher."""

    slope: float
    """Of the teacher's log-perplexity by diversity."""


def match_perplexity(
    student: SetFigures,
    near: SetFigures,
    far: SetFigures,
    *,
    generator: Generator,
    resamples: int = RESAMPLES,
) -> MatchedPerplexity:
    """Read a teacher's perplexity off at the student's diversity.

    The logarithm is linear in diversity between two sets of the teacher, and a little beyond them.
    Every resample draws the student's samples with replacement, and independently the teacher's, by
    the same indices in both sets, since the same random numbers were used for sample i of each.

    Args:
        student: Its set.
        near: The teacher's set that is nearest in diversity.
        far: One at another temperature, of as many samples, which differs in diversity.
        generator: Of the resamples.
        resamples: How many.

    Errors are half the width of the middle 68 % of resamples, since a slope, as a ratio, has a few
    far off. Units: perplexities; errors are those of the logarithms times the values, as in
        ``PerplexityAccumulator``, and NaN where the line is not known in every resample.
    Precision: float64. Memory: 40 bytes a resample and sample.
    """
    of_student = _weights(len(student.nats), resamples, generator)
    of_teacher = _weights(len(near.nats), resamples, generator)
    # Entry 0 of everything is the sets as they are, the others are resamples.
    log_student, target = _log_perplexity(student, of_student), _mean(student, of_student)
    log_near, at_near = _log_perplexity(near, of_teacher), _mean(near, of_teacher)
    log_far, at_far = _log_perplexity(far, of_teacher), _mean(far, of_teacher)
    slope = (log_far - log_near) / (at_far - at_near)
    log_teacher = log_near + slope * (target - at_near)
    ppl_student, ppl_teacher = log_student[0].exp().item(), log_teacher[0].exp().item()
    difference = ppl_student * log_student - ppl_teacher * log_teacher
    count = len(student.nats)
    return MatchedPerplexity(
        gen_ppl=Estimate(ppl_teacher, ppl_teacher * _spread(log_teacher), count),
        difference=Estimate(ppl_student - ppl_teacher, _spread(difference), count),
        slope=slope[0].item(),
    )


def _spread(values: Float64[Tensor, " R"]) -> float:
    """Compute the standard error from the resamples, which follow the value itself."""
    low, high = values[1:].quantile(torch.tensor(MIDDLE, dtype=torch.float64)).tolist()
    return (high - low) / 2


def _weights(count: int, resamples: int, generator: Generator) -> Float64[Tensor, "R N"]:
    """How often each sample occurs: once each, then in each resample."""
    drawn = torch.randint(count, (resamples, count), generator=generator)
    weights = torch.zeros(resamples + 1, count, dtype=torch.float64)
    weights[1:].scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64))
    weights[0] = 1.0
    return weights


def _mean(figures: SetFigures, weights: Float64[Tensor, "R N"]) -> Float64[Tensor, " R"]:
    return weights @ figures.diversity / len(figures.diversity)


def _log_perplexity(figures: SetFigures, weights: Float64[Tensor, "R N"]) -> Float64[Tensor, " R"]:
    return (weights @ figures.nats) / (weights @ figures.tokens.double())
