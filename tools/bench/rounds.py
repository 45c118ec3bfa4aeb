"""Measured rounds of several variants, in turns, and their medians."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds on the clock and of the processor that one piece of work took."""

    wall: float
    cpu: float

    def __add__(self, other: "Timing") -> "Timing":
        return Timing(self.wall + other.wall, self.cpu + other.cpu)


def timed(work: Callable[[], object], device: torch.device) -> Timing:
    """Run something to its end and time it."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


def in_turns(
    works: Mapping[str, Callable[[], Sequence[Timing]]], rounds: int
) -> dict[str, list[Sequence[Timing]]]:
    """Measure every work once a round, so that other load on the machine affects all alike.

    Each runs once before, unmeasured.
    """
    for work in works.values():
        work()
    seen: dict[str, list[Sequence[Timing]]] = {label: [] for label in works}
    for _ in range(rounds):
        for label, work in works.items():
            seen[label].append(work())
    return seen


def medians(rounds: Sequence[Sequence[Timing]]) -> list[Timing]:
    """Take the median of each part over rounds."""
    parts = zip(*rounds, strict=True)
    return [Timing(median(t.wall for t in p), median(t.cpu for t in p)) for p in parts]


def median_total(rounds: Sequence[Sequence[Timing]]) -> Timing:
    """Take the median of the sum of all parts."""
    totals = [sum(parts[1:], parts[0]) for parts in rounds]
    return medians([[total] for total in totals])[0]


def plain_values(rounds: Sequence[Sequence[Timing]]) -> list[list[dict[str, Any]]]:
    """Lay out all timings for a JSON file."""
    return [[{"wall": t.wall, "cpu": t.cpu} for t in parts] for parts in rounds]
