"""Ancestral sampling of the reverse chain."""

from jaxtyping import Float
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Denoiser, Process
from idlm_ds.samplers.reverse import Sampled, Tail, sample_reverse
from idlm_ds.samplers.truncation import Truncation
from idlm_ds.tensor_types import TokenIds


def sample_ancestral(
    process: Process,
    denoiser: Denoiser,
    x: TokenIds,
    times: Float[Tensor, " N"],
    *,
    noise: Noise,
    tail: Tail = "ancestral",
    temperature: float = 1.0,
    nucleus: float = 1.0,
) -> Sampled:
    """Walk ``x`` down the time grid by the process's own factorised step.

    Published code keeps a network's answer while no token changes ("ancestral with cache"). Here
    the network is not run in the first place where no token is drawn, which costs less and
    draws from the same distribution.

    Args:
        process: The family whose reverse step is used.
        denoiser: The network.
        x: The start, usually ``process.prior(...)``.
        times: Strictly decreasing; the first entry is the time of ``x``.
        noise: One stream per sequence; the result for a sequence does not depend on the others.
        tail: How the last noise is removed.
        temperature: Scores are divided by it; 1 is the model itself.
        nucleus: Mass of the likeliest tokens that is kept of each answer; 1 keeps all.

    Collective: see ``sample_reverse``.

    Raises:
        ValueError: The grid does not decrease, or temperature or nucleus is out of range.
    """
    sharpen = Truncation(process, temperature=temperature, nucleus=nucleus)
    return sample_reverse(
        process, process.step, denoiser, x, times, noise=noise, tail=tail, sharpen=sharpen
    )
