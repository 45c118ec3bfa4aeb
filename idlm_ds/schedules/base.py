"""What a noise schedule provides."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from idlm_ds.tensor_types import Time


@dataclass(frozen=True, slots=True)
class ScheduleAt:
    """A schedule read at some times."""

    alpha: Time
    """Probability that a token is still itself: 1 or nearly so at t=0, nearly 0 at t=1."""

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

    def target(self, s: Time) -> ScheduleAt:
        """Evaluate the schedule where a reverse step ends, time 0 meaning clean text.

        Some schedules leave a little noise at t=0; a chain that walks to 0 has to remove it.
        """
        at_s = self.at(s)
        is_clean = s == 0
        return ScheduleAt(
            alpha=torch.where(is_clean, 1.0, at_s.alpha),
            dalpha=at_s.dalpha,
            masked=torch.where(is_clean, 0.0, at_s.masked),
            sigma=torch.where(is_clean, 0.0, at_s.sigma),
        )
