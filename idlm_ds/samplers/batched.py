"""Numbered samples that do not depend on how they are split over batches and ranks."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Denoiser, Process
from idlm_ds.samplers.reverse import OnStep, Sampled
from idlm_ds.tensor_types import TokenIds

OnBatchStep: TypeAlias = Callable[[Sequence[int], int, float, TokenIds, Bool[Tensor, "B L"]], None]
"""``OnStep`` after the indices of the batch's samples: ``(samples, k, t, x_t, revealed)``."""


@runtime_checkable
class Drawing(Protocol):
    """Settings of a sampler; ``SamplerConfig`` and ``BlockwiseConfig`` are some."""

    def draw(
        self,
        process: Process,
        denoiser: Denoiser,
        x: TokenIds,
        /,
        *,
        noise: Noise,
        on_step: OnStep | None,
    ) -> Sampled:
        """Draw sequences of the shape of ``x``, a draw of the prior."""


def sample_batched(
    process: Process,
    denoiser: Denoiser,
    samples: Sequence[int],
    config: Drawing,
    *,
    length: int,
    seed: int,
    stream: str,
    batch: int,
    device: torch.device | str = "cpu",
    on_step: OnBatchStep | None = None,
) -> Sampled:
    """Draw the samples with these indices.

    Args:
        process: The diffusion family.
        denoiser: The network.
        samples: Indices within the whole set; each names its random stream.
        config: Settings of the sampler.
        length: Positions of a sequence.
        seed: Seed of the set.
        stream: Purpose of the set; sets of one seed and different streams are independent.
        batch: Sequences at a time.
        device: Where to draw.
        on_step: Watches each batch.

    Returns:
        The samples in the order of ``samples``, on the CPU.
    """
    parts = [samples[i : i + batch] for i in range(0, len(samples), batch)]
    drawn = []
    for part in parts:
        noise = Noise.of_samples(seed, stream, samples=part, device=device)
        x = process.prior(len(part), length, noise=noise)
        watch = partial(on_step, part) if on_step else None
        drawn.append(config.draw(process, denoiser, x, noise=noise, on_step=watch))
    if not parts:
        return Sampled(torch.zeros(0, length).long(), torch.zeros(0).long())
    return join(drawn)


def join(parts: Sequence[Sampled]) -> Sampled:
    """Concatenate batches on the CPU."""
    return Sampled(
        torch.cat([part.tokens.cpu() for part in parts]),
        torch.cat([part.evaluations for part in parts]),
    )
