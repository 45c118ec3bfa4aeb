"""Settings of a reverse chain as one value."""

from dataclasses import dataclass
from typing import final

from idlm_ds.noise import Noise
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Denoiser, Process
from idlm_ds.registry.samplers import ANCESTRAL, DRAWN, FLOAT32, FLOAT64, SAMPLERS
from idlm_ds.registry.table import load
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.samplers.reference import ReferenceStep
from idlm_ds.samplers.reverse import OnStep, ReverseStep, Sampled, sample_reverse
from idlm_ds.samplers.truncation import Truncation
from idlm_ds.tensor_types import TokenIds


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerConfig:
    """A reverse chain from t=1 to t=0 on a uniform grid."""

    steps: int
    sampler: str = ANCESTRAL
    precision: str = FLOAT64
    """float32 draws densely, with the bias of published samplers; see ``ReferenceStep``."""

    tail: str = DRAWN
    temperature: float = 1.0
    nucleus: float = 1.0
    latent: int = 0
    """Entries of the network's latent; 0 for a network without one."""

    def __post_init__(self) -> None:
        if not SAMPLERS[self.sampler].takes_truncation:
            if self.precision != FLOAT64:
                raise ValueError(f"precision: {self.sampler} draws in float64 only")
            if (self.temperature, self.nucleus) != (1.0, 1.0):
                raise ValueError(
                    f"temperature, nucleus: {self.sampler} takes its pace from the size of the "
                    f"scores, which these change; use {ANCESTRAL}"
                )

    @property
    def label(self) -> str:
        """Sampler, tail and nucleus, as printed beside figures."""
        tail = "" if self.tail == DRAWN else f"+{self.tail}"
        cut = "" if self.nucleus == 1 else f", nucleus {self.nucleus:g}"
        return f"{self.sampler}{tail}{cut}"

    def reverse_step(self, process: Process) -> ReverseStep:
        """Make the reverse step of a family.

        Raises:
            ValueError: The family has no such step.
        """
        row = SAMPLERS[self.sampler]
        if row.needs_mask and not isinstance(process, Absorbing):
            raise ValueError(f"sampler: {row.name} needs a masked family; use {ANCESTRAL}")
        if self.precision == FLOAT32:
            return ReferenceStep(process, FLOAT32)
        step: ReverseStep = load(row.entry_point)(process)
        return step

    def draw(
        self,
        process: Process,
        denoiser: Denoiser,
        x: TokenIds,
        *,
        noise: Noise,
        reverse_step: ReverseStep | None = None,
        on_step: OnStep | None = None,
    ) -> Sampled:
        """Run the reverse chain from ``x``, a draw of the prior, to t=0.

        Args:
            process: The family.
            denoiser: The network.
            x: The start.
            noise: One stream per sequence.
            reverse_step: Used in place of ``self.reverse_step(process)``, usually a wrapper of it.
            on_step: Watches the chain.

        Collective: see ``sample_reverse``.
        """
        return sample_reverse(
            process,
            reverse_step or self.reverse_step(process),
            denoiser,
            x,
            uniform_grid(self.steps),
            noise=noise,
            tail=self.tail,
            latent=self.latent,
            truncation=Truncation(process, self.temperature, self.nucleus),
            on_step=on_step,
        )
