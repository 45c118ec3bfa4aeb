"""Learning rate as a function of the number of updates made."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LearningRate:
    """Linear warm-up, a plateau, and a linear fall to zero at the end.

    During warm-up the update after n others has (n + 1) / W of the peak. Published code has n / W,
    so its first update does nothing and each of the others is one behind.
    """

    peak: float
    total: int
    """Updates of the whole run."""

    warmup_steps: int = 0
    decay_fraction: float = 0.0
    """Share of the run, at its end, that falls."""

    def at(self, count: int) -> float:
        """Return the rate of the update that follows ``count`` earlier ones."""
        warm = min(1.0, (count + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        falling = self.decay_fraction * self.total
        left = (self.total - count) / falling if falling else 1.0
        return self.peak * min(warm, max(0.0, left), 1.0)
