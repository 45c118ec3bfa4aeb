"""A set of samples that is the same however it is split over batches and ranks."""

from collections.abc import Sequence

import torch

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Denoiser, Process
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.samplers.reverse import Sampled


def sample_batched(
    process: Process,
    denoiser: Denoiser,
    samples: Sequence[int],
    chain: SamplerConfig,
    *,
    length: int,
    seed: int,
    stream: str,
    batch: int,
    device: torch.device | str = "cpu",
    num_batches: int | None = None,
) -> Sampled:
    """Draw the samples with these indices.

    Args:
        process: The diffusion family.
        denoiser: The network.
        samples: Indices within the whole set; each names its random stream.
        chain: How each is drawn.
        length: Positions of a sequence.
        seed: Seed of the set.
        stream: What the set is for, so that two sets of one seed are independent.
        batch: Sequences at a time.
        device: Where to draw.
        num_batches: How often to sample, at least; ranks that share ZeRO-3 weights must sample
            equally often, so the ones with fewer samples draw some that are thrown away.
    """
    parts = [samples[i : i + batch] for i in range(0, len(samples), batch)]
    idle = max(0, (num_batches or 0) - len(parts))
    drawn = []
    for part in [*parts, *([[0]] * idle)]:
        noise = Noise.of_samples(seed, stream, samples=part, device=device)
        x = process.prior(len(part), length, noise=noise)
        drawn.append(chain.draw(process, denoiser, x, noise=noise))
    kept = drawn[: len(parts)]
    if not kept:
        nothing = torch.zeros(0, length, dtype=torch.long)
        return Sampled(nothing, torch.zeros(0, dtype=torch.long), frozenset())
    return join(kept)


def join(parts: Sequence[Sampled]) -> Sampled:
    """Several batches as one set, on the CPU."""
    return Sampled(
        torch.cat([s.tokens.cpu() for s in parts]),
        torch.cat([s.evaluations for s in parts]),
        frozenset().union(*(s.dtypes for s in parts)),
    )
