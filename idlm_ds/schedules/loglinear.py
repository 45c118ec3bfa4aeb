"""Log-linear schedule: the survival probability falls linearly with time."""

from dataclasses import dataclass
from typing import final

import torch

from idlm_ds.schedules.base import NoiseSchedule, ScheduleAt
from idlm_ds.tensor_types import Time


@final
@dataclass(frozen=True, slots=True)
class LogLinear(NoiseSchedule):
    """``alpha_t = 1 - (1 - eps) t``, the schedule of SEDD (arXiv:2310.16834) and MDLM.

    ``eps`` keeps ``alpha`` above zero at t=1, so that ``-log alpha`` stays finite.
    """

    eps: float = 1e-3

    def __post_init__(self) -> None:
        if not 0.0 <= self.eps < 1.0:
            raise ValueError(f"eps must be in [0, 1), got {self.eps}")

    def at(self, t: Time) -> ScheduleAt:
        """See base class."""
        slope = 1.0 - self.eps
        return ScheduleAt(
            alpha=1.0 - slope * t,
            dalpha=torch.full_like(t, -slope),
            masked=slope * t,
            sigma=-torch.log1p(-slope * t),
        )

    def inverse(self, alpha: Time) -> Time:
        """See base class."""
        return (1.0 - alpha) / (1.0 - self.eps)
