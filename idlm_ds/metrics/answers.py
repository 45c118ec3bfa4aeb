"""Numbers that texts give as their answer."""

import math
import re
from dataclasses import dataclass

from idlm_ds.metrics.arithmetic import evaluate, is_program

MARK = "####"
"""What GSM8K writes before an answer."""

_NUMBER = re.compile(r"(?:(?<![\d.])-)?\$?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+")
TOLERANCE = 1e-6
"""Relative and absolute; programs count in floats."""


def answer_in(text: str) -> float | None:
    """Find the number a text ends up with; None where it gives none.

    The first number after ``####``; else what the function returns that the text defines, as far
    as ``evaluate`` can tell without running it; else the last number. Dollar signs, commas between
    thousands and a full stop behind the number do not count.
    """
    if MARK in text:
        return _number(_NUMBER.findall(text.partition(MARK)[2])[:1])
    if is_program(text):
        value = evaluate(text)
        return None if value is None else float(value)
    return _number(_NUMBER.findall(text)[-1:])


def is_same(answer: float | None, reference: float) -> bool:
    """Whether an answer is the right one; none is not."""
    return answer is not None and math.isclose(
        answer, reference, rel_tol=TOLERANCE, abs_tol=TOLERANCE
    )


def _number(found: list[str]) -> float | None:
    value = float(found[0].replace(",", "").replace("$", "")) if found else math.inf
    return value if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a proportion is, with 95 % confidence."""

    low: float
    high: float


def wilson(share: float, count: int) -> Interval:
    """Wilson's score interval of a proportion, which is not empty at 0 and 1 either.

    Args:
        share: The proportion that was seen.
        count: In how many independent trials.
    """
    z = 1.959963984540054
    scale = 1 / (1 + z**2 / count)
    centre = scale * (share + z**2 / (2 * count))
    reach = scale * z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return Interval(max(centre - reach, 0.0), min(centre + reach, 1.0))
