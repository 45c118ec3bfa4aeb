"""Clocks of Duo: the noise on tokens that Gaussian noise on one-hot vectors amounts to.

The largest entry of a one-hot vector with Gaussian noise, ``alpha~ e_k + sigma~ xi``, is entry k
with some probability, and otherwise each of the other entries with equal probability. Its argmax
is therefore a token under uniform noise, whose survival probability depends on the log
noise-to-signal ratio ``gamma`` only (arXiv:2506.10892).
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from idlm_ds.schedules.base import NoiseSchedule, ScheduleAt
from idlm_ds.schedules.loglinear import LogLinear
from idlm_ds.tensor_types import Time

REACH = 12.0
"""Range of the integral over the normal density; the rest contributes less than 1e-32."""

NODES = 401
"""Nodes of the trapezoid rule; 8001 nodes change the result by less than 1e-14."""

LOWEST, HIGHEST = -40.0, 40.0
"""Search range of ``gamma``; the survival probability at its ends is 1 and 0 in float64."""

BISECTIONS = 64


@final
@dataclass(frozen=True, slots=True)
class GaussianMap:
    """Survival probability of the argmax as a function of ``gamma``, and its inverse.

    Computed by quadrature to float64 accuracy, without a table, for any vocabulary size.
    """

    vocab_size: int

    def __post_init__(self) -> None:
        if self.vocab_size < 2:
            raise ValueError(f"vocab_size must be at least 2, got {self.vocab_size}")

    def masked(self, gamma: Time) -> Time:
        """Compute one minus the survival probability.

        Precision: float64; the relative error stays small where the value is small.
        """
        _, weight, lost = self._nodes(gamma)
        return self._scale * (weight * lost).sum(-1)

    def slope(self, gamma: Time) -> Time:
        """Differentiate the survival probability with respect to ``gamma``; negative."""
        u, weight, lost = self._nodes(gamma)
        # d/d gamma of the integrand, integrated by parts over the normal density.
        mu = _signal(gamma)[:, None]
        return self._scale * (weight * (0.5 * mu * u) * lost).sum(-1)

    def gamma(self, masked: Time) -> Time:
        """Invert ``masked``, whose values are in (0, 1), by bisection to float64 accuracy."""
        low = torch.full_like(masked, LOWEST, dtype=torch.float64)
        high = torch.full_like(low, HIGHEST)
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            is_below = self.masked(middle) < masked
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return 0.5 * (low + high)

    @property
    def _scale(self) -> float:
        return self.vocab_size / (self.vocab_size - 1)

    def _nodes(self, gamma: Time) -> tuple[Tensor, Tensor, Tensor]:
        """Return nodes ``u``, weights, and the probability that another entry is above ``mu + u``.

        Shapes: (nodes,), (nodes,) and (B, nodes).
        """
        u = torch.linspace(-REACH, REACH, NODES, dtype=torch.float64, device=gamma.device)
        weight = torch.exp(-0.5 * u**2)
        log_rest = (self.vocab_size - 1) * torch.special.log_ndtr(_signal(gamma)[:, None] + u)
        return u, weight / weight.sum(), -torch.expm1(log_rest)


class DuoClock(NoiseSchedule):
    """Schedule on tokens that also provides the equivalent Gaussian noise."""

    @abstractmethod
    def gamma(self, t: Time) -> Time:
        """Return the log noise-to-signal ratio at ``t``."""


@final
@dataclass(frozen=True, slots=True)
class GaussianClock(DuoClock):
    """Clock on which ``gamma`` is linear in time, as in published training runs.

    The default range leaves out both ends, where there is little to learn.
    """

    map: GaussianMap
    gamma_min: float = -3.55
    gamma_max: float = -1.85

    def __post_init__(self) -> None:
        if not LOWEST < self.gamma_min < self.gamma_max < HIGHEST:
            raise ValueError(
                f"need {LOWEST} < gamma_min < gamma_max < {HIGHEST}, got "
                f"gamma_min={self.gamma_min}, gamma_max={self.gamma_max}"
            )

    def at(self, t: Time) -> ScheduleAt:
        """See base class; the derivative is computed from the exact map."""
        gamma = self.gamma(t)
        masked = self.map.masked(gamma)
        return ScheduleAt(
            alpha=1.0 - masked,
            dalpha=(self.gamma_max - self.gamma_min) * self.map.slope(gamma),
            masked=masked,
            sigma=-torch.log1p(-masked),
        )

    def gamma(self, t: Time) -> Time:
        """See base class."""
        return self.gamma_min + (self.gamma_max - self.gamma_min) * t.double()

    def inverse(self, alpha: Time) -> Time:
        """See base class."""
        gamma = self.map.gamma(1.0 - alpha)
        return (gamma - self.gamma_min) / (self.gamma_max - self.gamma_min)


@final
@dataclass(frozen=True, slots=True)
class TokenClock(DuoClock):
    """Clock of a given schedule on tokens, with the Gaussian noise that matches it."""

    map: GaussianMap
    schedule: NoiseSchedule

    @classmethod
    def loglinear(cls, token_map: GaussianMap, eps: float) -> "TokenClock":
        """Build the clock on which the survival probability falls linearly."""
        return cls(token_map, LogLinear(eps))

    def at(self, t: Time) -> ScheduleAt:
        """See base class."""
        return self.schedule.at(t)

    def gamma(self, t: Time) -> Time:
        """See base class."""
        return self.map.gamma(self.schedule.at(t).masked)

    def inverse(self, alpha: Time) -> Time:
        """See base class."""
        return self.schedule.inverse(alpha)


def _signal(gamma: Time) -> Time:
    """Return the signal-to-noise amplitude ``exp(-gamma / 2)``."""
    return torch.exp(-0.5 * gamma.double())
