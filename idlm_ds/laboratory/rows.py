"""One measured figure of the laboratory."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Divergence of a language from the law of one chain."""

    language: str
    line: str
    """The method, or what else draws."""

    steps: int
    seed: int | None = None
    """Of the training; None where nothing was trained."""

    kl: float
    """``KL(truth | law)`` of whole sentences in nats."""

    se: float = 0.0
    """Standard error of ``kl`` from draws; 0 where it was summed up exactly."""

    mass: float | None = None
    """Probability that the chain draws a sentence of the language."""

    how: str = "exact"


@final
@dataclass(frozen=True, slots=True)
class TableEntry:
    """A line of the table at a number of steps: mean over seeds, and half their range."""

    kl: float
    spread: float
    """Half the range over seeds, or the error of draws where it is larger."""

    mass: float | None


def cell(figures: Sequence[Finding]) -> TableEntry:
    """Join the seeds of a line at one number of steps."""
    kls = [figure.kl for figure in figures]
    error = max(figure.se for figure in figures)
    spread = max((max(kls) - min(kls)) / 2, error) if math.isfinite(max(kls)) else math.nan
    masses = [figure.mass for figure in figures if figure.mass is not None]
    return TableEntry(sum(kls) / len(kls), spread, sum(masses) / len(masses) if masses else None)


def cells(figures: Iterable[Finding], language: str) -> dict[str, dict[int, TableEntry]]:
    """Lay out the figures of a language by line and steps, in the order they come."""
    groups: dict[str, dict[int, list[Finding]]] = {}
    for figure in figures:
        if figure.language == language:
            groups.setdefault(figure.line, {}).setdefault(figure.steps, []).append(figure)
    return {
        line: {steps: cell(members) for steps, members in by_steps.items()}
        for line, by_steps in groups.items()
    }
