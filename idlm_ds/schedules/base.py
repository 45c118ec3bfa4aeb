"""Base class of noise schedules."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from idlm_ds.tensor_types import Time


@dataclass(frozen=True, slots=True)
class ScheduleAt:
    """Values of a schedule at given times."""

    alpha: Time
    """Survival probability of a token: 1 or nearly 1 at t=0, nearly 0 at t=1."""

    dalpha: Time
    """Time derivative of ``alpha``, negative."""

    masked: Time
    """``1 - alpha``, computed without cancellation near t=0."""

    sigma: Time
    """Total noise ``-log alpha``, the input of time-conditioned networks."""


class NoiseSchedule(ABC):
    """Decreasing function from diffusion time to survival probability."""

    @abstractmethod
    def at(self, t: Time) -> ScheduleAt:
        """Evaluate the schedule and its derivative.

        Precision: that of ``t``; pass float64.
        """

    @abstractmethod
    def inverse(self, alpha: Time) -> Time:
        """Return the time at which the survival probability is ``alpha``."""

    def target(self, s: Time) -> ScheduleAt:
        """Evaluate the schedule at the end of a reverse step, with no noise at time 0.

        Some schedules leave a little noise at t=0, which a reverse chain that ends at 0 removes.
        """
        at_s = self.at(s)
        is_clean = s == 0
        return ScheduleAt(
            alpha=torch.where(is_clean, 1.0, at_s.alpha),
            dalpha=at_s.dalpha,
            masked=torch.where(is_clean, 0.0, at_s.masked),
            sigma=torch.where(is_clean, 0.0, at_s.sigma),
        )
