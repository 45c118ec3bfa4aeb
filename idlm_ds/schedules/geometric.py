"""Geometric schedule: the total noise grows exponentially with time."""

import math
from dataclasses import dataclass
from typing import final

import torch

from idlm_ds.schedules.base import NoiseSchedule, ScheduleAt
from idlm_ds.tensor_types import Time


@final
@dataclass(frozen=True, slots=True)
class Geometric(NoiseSchedule):
    """``sigma_t = sigma_min^(1 - t) sigma_max^t``, SEDD's other schedule (arXiv:2310.16834).

    Some noise remains at t=0, where the survival probability is ``exp(-sigma_min)``.
    """

    sigma_min: float = 1e-4
    sigma_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0.0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                "need 0 < sigma_min < sigma_max, got "
                f"sigma_min={self.sigma_min}, sigma_max={self.sigma_max}"
            )

    @property
    def _rate(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def at(self, t: Time) -> ScheduleAt:
        """See base class."""
        sigma = self.sigma_min * torch.exp(self._rate * t)
        alpha = torch.exp(-sigma)
        return ScheduleAt(
            alpha=alpha,
            dalpha=-self._rate * sigma * alpha,
            masked=-torch.expm1(-sigma),
            sigma=sigma,
        )

    def inverse(self, alpha: Time) -> Time:
        """See base class."""
        return torch.log(-torch.log(alpha) / self.sigma_min) / self._rate
