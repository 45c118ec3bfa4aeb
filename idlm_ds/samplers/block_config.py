"""Settings of block-by-block generation as one value."""

from dataclasses import dataclass
from typing import ClassVar, TypeAlias, final

from idlm_ds.noise import Noise
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Denoiser, Process
from idlm_ds.registry.samplers import FLOAT64
from idlm_ds.samplers.blockwise import Remasking, check_blockwise, sample_blockwise
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.samplers.reverse import OnStep, Sampled
from idlm_ds.tensor_types import TokenIds


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class BlockwiseConfig:
    """Whole sequences from nothing, in blocks from left to right; see ``sample_blockwise``."""

    precision: ClassVar[str] = FLOAT64
    nucleus: ClassVar[float] = 1.0

    steps: int
    """Of all blocks together."""

    block: int
    """Tokens of a block."""

    remasking: Remasking
    temperature: float = 1.0
    latent: int = 0
    """Entries of the network's latent; 0 for a network without one."""

    @property
    def label(self) -> str:
        """Sampler, block and remasking, as printed beside figures."""
        return f"blockwise, block {self.block}, {self.remasking}"

    def check(self, process: Process, length: int) -> None:
        """Check that a family has this sampler, and that ``length`` tokens are whole blocks.

        Raises:
            ValueError: Names the argument, what is wrong with it and what is allowed.
        """
        if not isinstance(process, Absorbing):
            raise ValueError("sampler: blockwise needs a masked family; use ancestral")
        check_blockwise(
            process,
            0,
            length=length,
            block=self.block,
            steps=self.steps,
            temperature=self.temperature,
            remasking=self.remasking,
        )

    def draw(
        self,
        process: Process,
        denoiser: Denoiser,
        x: TokenIds,
        *,
        noise: Noise,
        on_step: OnStep | None = None,
    ) -> Sampled:
        """Fill sequences of the shape of ``x``, of which nothing else is read.

        Collective: see ``sample_blockwise``.
        """
        assert isinstance(process, Absorbing)
        return sample_blockwise(
            process,
            denoiser,
            x[:, :0],
            length=x.shape[1],
            block=self.block,
            steps=self.steps,
            noise=noise,
            temperature=self.temperature,
            remasking=self.remasking,
            latent=self.latent,
            on_step=on_step,
        )


AnySampler: TypeAlias = SamplerConfig | BlockwiseConfig
