"""Cosine schedule: the survival probability follows a quarter period of a cosine."""

import math
from dataclasses import dataclass
from typing import final

import torch

from idlm_ds.schedules.base import NoiseSchedule, ScheduleAt
from idlm_ds.tensor_types import Time


@final
@dataclass(frozen=True, slots=True)
class Cosine(NoiseSchedule):
    """``alpha_t = eps + (1 - eps) cos(pi t / 2)``, the cosine schedule of MDLM's ablations."""

    eps: float = 1e-3

    def __post_init__(self) -> None:
        if not 0.0 < self.eps < 1.0:
            raise ValueError(f"eps must be in (0, 1), got {self.eps}")

    def at(self, t: Time) -> ScheduleAt:
        """See base class."""
        scale, angle = 1.0 - self.eps, 0.5 * math.pi * t
        # 1 - cos(x) = 2 sin(x/2)^2 keeps its relative accuracy near 0.
        masked = 2.0 * scale * torch.sin(0.5 * angle) ** 2
        return ScheduleAt(
            alpha=self.eps + scale * torch.cos(angle),
            dalpha=-0.5 * math.pi * scale * torch.sin(angle),
            masked=masked,
            sigma=-torch.log1p(-masked),
        )

    def inverse(self, alpha: Time) -> Time:
        """See base class."""
        half = torch.sqrt((1.0 - alpha) / (2.0 * (1.0 - self.eps)))
        return torch.asin(half) * (4.0 / math.pi)
