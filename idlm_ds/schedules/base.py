"""What a noise schedule provides."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from idlm_ds.tensor_types import Time


@dataclass(frozen=True, slots=True)
class ScheduleAt:
    """A schedule read at some times."""

    alpha: Time
    """Probability that a token is still itself: 1 at t=0, nearly 0 at t=1."""

    dalpha: Time
    """Time derivative of ``alpha``, negative."""

    masked: Time
    """``1 - alpha``, computed without the cancellation of that subtraction near t=0."""

    sigma: Time
    """Total noise ``-log alpha``, what time-conditioned networks are shown."""


class NoiseSchedule(ABC):
    """A decreasing map from diffusion time to survival probability."""

    @abstractmethod
    def at(self, t: Time) -> ScheduleAt:
        """Evaluate the schedule and its derivative.

        Precision: that of ``t``; pass float64.
        """

    @abstractmethod
    def inverse(self, alpha: Time) -> Time:
        """Return the time at which the survival probability is ``alpha``."""
