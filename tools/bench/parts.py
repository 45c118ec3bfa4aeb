"""The parts of a step that the operators of a profile belong to."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import profile

from bench.labels import DRAWS, TRUNK
from bench.plain_roles import MEANS, OPTIMIZER

PHASES = ("fake phase", "student phase")
FORWARD, BACKWARD = "trunk forward", "trunk backward"
PROJECTION, ROWS, OTHER = "vocabulary projections", "row losses", "other"
PARTS = (FORWARD, BACKWARD, PROJECTION, ROWS, DRAWS, OPTIMIZER, MEANS, OTHER)
PRODUCTS = {"mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2)}
"""Operators that multiply matrices, and which inputs they multiply."""

RANDOM = ("rand", "uniform_", "normal_", "cumsum", "searchsorted", "exponential_", "multinomial")
"""Operators that draw, or invert a distribution, wherever they are."""

ATTENTION = "scaled_dot_product"


@dataclass
class Amount:
    """What a part took."""

    seconds: float = 0.0
    flops: float = 0.0


def by_phase(taken: profile, vocab: int, *, is_cuda: bool) -> dict[str, Mapping[str, Amount]]:
    """Add up the parts of each phase; operators of other threads belong to it by their time."""
    events = [e for e in taken.events() if e.device_type == DeviceType.CPU]
    spans = {e.name: e.time_range for e in events if e.name in PHASES}
    result = {}
    for phase, span in spans.items():
        inside = [e for e in events if span.start <= e.time_range.start <= span.end]
        result[phase] = amounts(inside, vocab, is_cuda=is_cuda)
    return result


def amounts(events: Iterable[Any], vocab: int, *, is_cuda: bool) -> Mapping[str, Amount]:
    """Add up the operators of one phase.

    A backward operator belongs to the part of its forward operator, by autograd's number of it.
    What is neither trunk nor product is a row loss if it reads as much as one row of scores.

    Args:
        events: Operators, with shapes of inputs.
        vocab: Ids.
        is_cuda: Whether the time of kernels counts, else that of the processor.
    """
    events = list(events)
    numbers = {e.sequence_nr for e in events if e.sequence_nr >= 0 and _is_below(e, TRUNK)}
    result: dict[str, Amount] = defaultdict(Amount)
    for event in events:
        part = result[part_of(event, numbers, vocab)]
        spent = event.self_device_time_total if is_cuda else event.self_cpu_time_total
        part.seconds += spent / 1e6
        part.flops += flops_of(event)
    return result


def part_of(event: Any, trunk_numbers: set[int], vocab: int) -> str:
    """Name the part of an operator."""
    names = [e.name for e in _line(event)]
    for label in (OPTIMIZER, MEANS, DRAWS):
        if label in names:
            return label
    if TRUNK in names:
        return FORWARD
    if any("Backward" in e.name and e.sequence_nr in trunk_numbers for e in _line(event)):
        return BACKWARD
    if any(_plain(name) in PRODUCTS for name in names):
        return PROJECTION
    if _plain(event.name).startswith(RANDOM):
        return DRAWS
    is_gradient = any("AccumulateGrad" in name for name in names)
    return ROWS if _largest(event) >= vocab and not is_gradient else OTHER


def flops_of(event: Any) -> float:
    """Count the operations of a product or of attention, whose backward counts twice."""
    shapes = event.input_shapes or []
    inputs = PRODUCTS.get(_plain(event.name))
    above = [_plain(e.name) for e in _line(event)][1:]
    if inputs and len(shapes) > inputs[1] and not any(name in PRODUCTS for name in above):
        left, right = (shapes[i] for i in inputs)
        return 2.0 * prod(left) * right[-1]
    if ATTENTION in event.name and not any(ATTENTION in name for name in above):
        # Of the calls inside each other only the outermost counts.
        return _attention_flops(event.name, shapes)
    return 0.0


def _attention_flops(name: str, shapes: list[list[int]]) -> float:
    """Count from the first inputs (B, H, L, E); a backward has the output's gradient first."""
    if not shapes or len(shapes[0]) != 4:
        return 0.0
    batch, heads, length, width = shapes[0]
    return 4.0 * batch * heads * length**2 * width * (2 if "backward" in name else 1)


def _line(event: Any) -> Iterator[Any]:
    """Yield an operator and those it was called by."""
    while event is not None:
        yield event
        event = event.cpu_parent


def _is_below(event: Any, label: str) -> bool:
    return any(e.name == label for e in _line(event))


def _plain(name: str) -> str:
    """Return the name of an operator without namespace and the mark of work in place."""
    short = name.removeprefix("aten::")
    return short.removesuffix("_") if short.removesuffix("_") in PRODUCTS else short


def _largest(event: Any) -> int:
    return max((prod(shape) for shape in event.input_shapes or [] if shape), default=0)
