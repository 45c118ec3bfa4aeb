"""Extract numeric answers from texts, and estimate the share of right ones."""

import math
import re

from idlm_ds.metrics.arithmetic import evaluate, is_program

MARK = "####"
"""Marker of GSM8K before an answer."""

_NUMBER = re.compile(r"(?:(?<![\d.])-)?\$?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+")
TOLERANCE = 1e-6
"""Relative and absolute tolerance, since programs compute in floats."""


def answer_in(text: str) -> float | None:
    """Return the numeric answer of a text; None if it has none.

    The answer is the first number after ``####``; else, if the text defines a function, its return
    value according to ``evaluate``; else the last number. Dollar signs, thousands separators and a
    full stop after the number are ignored.
    """
    if MARK in text:
        return _number(_NUMBER.findall(text.partition(MARK)[2])[:1])
    if is_program(text):
        value = evaluate(text)
        return None if value is None else float(value)
    return _number(_NUMBER.findall(text)[-1:])


def is_same(answer: float | None, reference: float) -> bool:
    """Tell whether an answer equals the reference; None never does."""
    return answer is not None and math.isclose(
        answer, reference, rel_tol=TOLERANCE, abs_tol=TOLERANCE
    )


def _number(matches: list[str]) -> float | None:
    value = float(matches[0].replace(",", "").replace("$", "")) if matches else math.inf
    return value if math.isfinite(value) else None


def wilson(share: float, count: int) -> tuple[float, float]:
    """Compute the 95 % Wilson score interval of a share of ``count`` independent trials.

    It has a width even at 0 and 1.
    """
    z = 1.959963984540054
    scale = 1 / (1 + z**2 / count)
    centre = scale * (share + z**2 / (2 * count))
    half_width = scale * z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(centre - half_width, 0.0), min(centre + half_width, 1.0)
