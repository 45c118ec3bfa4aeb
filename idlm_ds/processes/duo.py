"""Uniform diffusion as the argmax of Gaussian diffusion (Duo, arXiv:2506.10892)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Noisy
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.processes.uniform import Uniform
from idlm_ds.registry.families import CLOCKS
from idlm_ds.registry.table import load, look_up
from idlm_ds.schedules.gaussian import DuoClock, GaussianMap
from idlm_ds.tensor_types import SoftInput, Time


@final
@dataclass(frozen=True, slots=True)
class Duo(Uniform):
    """Noise is Gaussian, on the simplex.

    Its argmax is the hard state and indexes the losses, which are those of uniform diffusion.
    Networks are shown ``softmax(w / tau)``, through which a gradient reaches the target: with a
    distilled teacher (Duo-DCD) everything is the same.

    Training times are times of ``clock``; the reverse chain walks on ``schedule``.
    """

    clock: DuoClock
    tau: float = 1e-3
    """Temperature of the relaxed input; towards 0 it becomes the hard state."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], **arguments: Any) -> "Duo":
        """See base class."""
        row = look_up(CLOCKS, settings["clock"], "process.clock")
        token_map = GaussianMap(arguments["vocab_size"])
        clock = load(row.entry_point)(token_map, *(settings[key] for key in row.settings))
        return cls(**arguments, clock=clock, tau=settings["tau"])

    def __post_init__(self) -> None:
        Uniform.__post_init__(self)
        if not self.tau > 0:
            raise ValueError(f"tau must be positive, got {self.tau}")

    def corrupt(self, x_0: SoftTokens, t: Time, *, noise: Noise) -> Noisy:
        """See base class.

        Gradient: none reaches ``x_t``; ``x_in`` passes one to ``x_0``, of scale ``1 / tau`` but
        only where two entries nearly tie.
        """
        # Gaussian noise on all rows (B * L, V) of the soft or one-hot target.
        batch, length = x_0.tokens.shape
        gamma = self.clock.gamma(t)
        signal, spread = (torch.sigmoid(g).sqrt() for g in (-gamma, gamma))
        rows = x_0.rows()

        def per_row(amplitude: Time) -> torch.Tensor:
            return amplitude.repeat_interleave(length)[:, None].to(rows.dtype)

        xi = noise.normal(length, self.vocab_size).flatten(0, 1).to(rows.dtype)
        w = per_row(signal) * rows + per_row(spread) * xi
        # Hard state for the losses, relaxed state for the networks.
        x_t = w.detach().argmax(-1).view(batch, length)
        x_in = SoftInput(w / self.tau, (batch, length))
        return Noisy(
            x_0=x_0,
            x_t=x_t,
            x_in=x_in,
            at_t=self.clock.at(t),
            positions=self.undecided(x_t),
        )
