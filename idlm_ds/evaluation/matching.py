"""The control of a distilled student: its teacher at the temperature that is as diverse."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float64
from torch import Generator, Tensor

from idlm_ds.evaluation.cell import Cell
from idlm_ds.evaluation.compare import STANDARD_ERRORS
from idlm_ds.evaluation.draw import SampleSet
from idlm_ds.evaluation.row import with_error
from idlm_ds.evaluation.score import Scores
from idlm_ds.metrics.accumulate import Estimate
from idlm_ds.metrics.entropy import distinct_pseudovalues, unigram_entropy
from idlm_ds.metrics.matched import MatchedPerplexity, SetFigures, match_perplexity
from idlm_ds.noise import derive_seed
from idlm_ds.tensor_types import TokenIds

MAX_CORRECTIONS = 2
FIRST_GUESS = 0.85
COLDEST, HOTTEST = 0.2, 2.0

MAX_EXTENSIONS = 2
"""Further sets drawn so that a slope is known at the target."""

SLOPE_REACHES = 3
"""Reaches between two sets that give a slope, which makes its noise small where it is used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diversity:
    """A figure of a set that rises with temperature, in which two sets are matched."""

    column: str
    heading: str
    of: Callable[[TokenIds], Float64[Tensor, " N"]]
    """Values of the samples; their mean is the figure, their spread gives its error."""

    close: float
    """Difference within which two sets count as matched."""

    typical_slope: float
    """Rise for a unit of temperature, where tries have not measured it."""

    reach: float
    """How far from a set a line through it is used; more where the target is less certain."""


ENTROPY = Diversity(
    column="entropy",
    heading="entropy",
    of=unigram_entropy,
    close=0.005,
    typical_slope=0.9,
    reach=0.02,
)
DISTINCT_2 = Diversity(
    column="distinct_2",
    heading="distinct-2",
    of=lambda tokens: distinct_pseudovalues(tokens, min(2, tokens.shape[1])),
    close=0.005,
    typical_slope=0.5,
    reach=0.02,
)


def match(
    level_at: Callable[[float], float], target: float, guess: float, *, diversity: Diversity
) -> float:
    """Find the temperature whose samples have a diversity.

    Entropy, in nats, rises with temperature nearly linearly here, so a secant step or two from a
    fair guess suffice.

    Returns:
        Of the temperatures tried, the one that came nearest.
    """
    levels = {guess: level_at(guess)}
    last, slope = guess, diversity.typical_slope
    for _ in range(MAX_CORRECTIONS):
        miss = levels[last] - target
        guess = _within_limits(last - miss / slope)
        if abs(miss) < diversity.close or guess in levels:
            break
        levels[guess] = level_at(guess)
        rise = (levels[guess] - levels[last]) / (guess - last)
        last, slope = guess, rise if rise > 0 else diversity.typical_slope
    return nearest(levels, target)


def extend(
    level_at: Callable[[float], float],
    target: float,
    levels: dict[float, float],
    *,
    diversity: Diversity,
    reach: float,
) -> str | None:
    """Try more temperatures, until one is within reach of the target and another gives a slope.

    ``levels``, by temperature, receives the new ones.

    Returns:
        None, or why the target cannot be reached.
    """
    for _ in range(MAX_EXTENSIONS):
        if _is_reached(levels, target, reach):
            break
        start = nearest(levels, target)
        miss = target - levels[start]
        # Where a set is near, a colder one gives the slope: hot ones differ by little.
        rise = miss if abs(miss) > reach else -1.2 * SLOPE_REACHES * reach
        guess = _within_limits(start + rise / _slope(levels, diversity))
        if guess in levels:
            break
        levels[guess] = level_at(guess)
    if _is_reached(levels, target, reach):
        return None
    return (
        f"its {diversity.heading} at temperatures {min(levels):.3g} to {max(levels):.3g} is "
        f"{min(levels.values()):.4g} to {max(levels.values()):.4g}, which is too far from the "
        f"student's {target:.4g}, or too flat"
    )


def nearest(levels: Mapping[float, float], target: float) -> float:
    """Of the temperatures tried, the one that came nearest."""
    return min(levels, key=lambda temperature: abs(levels[temperature] - target))


def _within_limits(temperature: float) -> float:
    return min(HOTTEST, max(COLDEST, temperature))


def neighbour(levels: Mapping[float, float], target: float, reach: float) -> float | None:
    """Of the temperatures far enough from the nearest for a slope, the next one; if any."""
    at_nearest = levels[nearest(levels, target)]
    others = {t: at for t, at in levels.items() if abs(at - at_nearest) >= SLOPE_REACHES * reach}
    return nearest(others, target) if others else None


def _is_reached(levels: Mapping[float, float], target: float, reach: float) -> bool:
    miss = abs(levels[nearest(levels, target)] - target)
    return miss <= reach and neighbour(levels, target, reach) is not None


def _slope(levels: Mapping[float, float], diversity: Diversity) -> float:
    """Rise between the coldest and the hottest try; the typical one where that says too little."""
    coldest, hottest = min(levels), max(levels)
    rise = levels[hottest] - levels[coldest]
    if rise < diversity.reach:
        return diversity.typical_slope
    return rise / (hottest - coldest)


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """A set of samples and what the judge says of it."""

    cell: Cell
    samples: SampleSet
    scores: Scores

    def level(self, diversity: Diversity) -> float:
        """Diversity of the set."""
        return diversity.of(self.samples.tokens).mean().item()

    def reach(self, diversity: Diversity) -> float:
        """How far from this set's diversity a set of the teacher may be: two standard errors."""
        values = diversity.of(self.samples.tokens)
        return max(diversity.reach, 2 * values.std().item() / len(values) ** 0.5)

    def figures(self, diversity: Diversity) -> SetFigures:
        """Figures of the samples, for matching in this diversity."""
        values = diversity.of(self.samples.tokens)
        return SetFigures(self.scores.nats, self.scores.tokens, values)


@dataclass(frozen=True, slots=True)
class TemperatureTries:
    """Sets of a teacher at one number of steps, each temperature drawn once."""

    draw: Callable[[float], JudgedSet]
    sets: dict[float, JudgedSet] = field(default_factory=dict)
    """By temperature."""

    def at(self, temperature: float) -> JudgedSet:
        """Draw and judge a set, or return it if that was done before."""
        if temperature not in self.sets:
            self.sets[temperature] = self.draw(temperature)
        return self.sets[temperature]

    def levels(self, diversity: Diversity) -> dict[float, float]:
        """Diversity by temperature."""
        return {temperature: each.level(diversity) for temperature, each in self.sets.items()}

    def search(self, diversity: Diversity, target: float, guess: float) -> float:
        """See ``match``."""
        return match(
            lambda temperature: self.at(temperature).level(diversity),
            target,
            guess,
            diversity=diversity,
        )

    def compare(
        self, diversity: Diversity, student: JudgedSet, seed: int
    ) -> tuple[JudgedSet, dict[str, Any]]:
        """Compare the student with the teacher at equal diversity, drawing more sets if need be.

        ``seed`` is that of the resamples behind the standard errors.

        Returns:
            The set nearest in diversity, and the columns of its row about the match, which take
            the place of the set's own perplexity.
        """
        target = student.level(diversity)
        unreached = extend(
            lambda temperature: self.at(temperature).level(diversity),
            target,
            self.levels(diversity),
            diversity=diversity,
            reach=student.reach(diversity),
        )
        matched = unreached or self._perplexity(diversity, student, seed)
        columns = {
            **_match_columns(matched),
            "matched_in": diversity.column,
            "matched_to_steps": student.cell.steps,
            "temperatures_tried": sorted(self.sets),
        }
        return self.sets[nearest(self.levels(diversity), target)], columns

    def _perplexity(
        self, diversity: Diversity, student: JudgedSet, seed: int
    ) -> MatchedPerplexity | str:
        """See ``match_perplexity``; or why there is none."""
        levels, target = self.levels(diversity), student.level(diversity)
        near = nearest(levels, target)
        far = neighbour(levels, target, student.reach(diversity))
        assert far is not None
        sets = student, self.sets[near], self.sets[far]
        if not all(each.scores.tokens.any() for each in sets):
            return "a set has no scored token"
        matched = match_perplexity(
            *(each.figures(diversity) for each in sets),
            generator=Generator().manual_seed(derive_seed(seed, "resamples", diversity.column)),
        )
        is_known = math.isfinite(matched.difference.se) and math.isfinite(matched.gen_ppl.se)
        return matched if is_known else "too few scored tokens for an error"


def _match_columns(matched: MatchedPerplexity | str) -> dict[str, Any]:
    if isinstance(matched, str):
        return {
            **with_error("gen_ppl", None),
            **with_error("student_minus_matched", None),
            "verdict": None,
            "gen_ppl_slope": None,
            "not_matched": matched,
        }
    return {
        **with_error("gen_ppl", matched.gen_ppl),
        **with_error("student_minus_matched", matched.difference),
        "verdict": verdict(matched.difference),
        "gen_ppl_slope": matched.slope,
        "not_matched": None,
    }


def verdict(difference: Estimate) -> str:
    """Say whether the student's perplexity is below, level with or above that of its control."""
    if not abs(difference.value) > STANDARD_ERRORS * difference.se:
        return "level"
    return "below" if difference.value < 0 else "above"
