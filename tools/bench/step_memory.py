"""The peak memory of a training step, over what is there between steps."""

from collections.abc import Callable
from typing import Any

from bench import memory
from bench.plain_roles import Learning
from bench.step_variants import Variant

PHASES = ("fake", "student")


def measure(variant: Variant, learners: list[Any], rounds: int) -> dict[str, int]:
    """Measure the peak of each phase, over weights, one set of gradients, Adam and running means.

    ``passes`` is the most until gradients are complete, ``whole`` includes the optimizer.

    Args:
        variant: What is run; ``memory.give_back_at_once`` was called before it was made.
        learners: Its networks that learn.
        rounds: Iterations; the most of all counts.
    """
    passes: list[int] = []
    for learner in learners:
        if isinstance(learner, Learning):
            learner.before_update = lambda: passes.append(memory.peak())
    # Adam's moments appear in the first iteration.
    variant.phase(), variant.phase()
    passes.clear()
    kept = memory.settled()
    gradients = sum(p.numel() * p.element_size() for p in learners[0].module.parameters())
    wholes = [_peak(variant.phase) for _ in range(2 * rounds)]

    def extra(peaks: list[int]) -> dict[str, int]:
        return {n: max(peaks[i::2]) - kept - gradients for i, n in enumerate(PHASES) if peaks}

    result = {f"whole_{name}": value for name, value in extra(wholes).items()}
    result |= {f"passes_{name}": value for name, value in extra(passes).items()}
    return result | {"whole": max(extra(wholes).values()), "kept": kept, "gradients": gradients}


def _peak(work: Callable[[], object]) -> int:
    memory.settled()
    return memory.peak_of(work)
