"""The latent of a student: random numbers of its own beside the state it is shown."""

from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Process
from idlm_ds.tensor_types import LatentInput, NetworkInput, Time, TokenIds


def draw_latent(size: int, length: int, *, noise: Noise) -> Tensor | None:
    """Draw a standard normal latent (B, L, ``size``); None for size 0, which draws nothing."""
    return noise.normal(length, size) if size else None


def show_latent(
    process: Process, x: NetworkInput, z: Tensor | None, *, x_t: TokenIds, sigma: Time
) -> NetworkInput:
    """Put a latent beside what a network is shown.

    Args:
        process: The family, whose ``ignorance`` of the state is the gate of the latent.
        x: What a network without a latent is shown.
        z: The latent (B, L, Z); without one ``x`` is returned as it is.
        x_t: The hard state.
        sigma: Its total noise.
    """
    if z is None:
        return x
    assert not isinstance(x, LatentInput)
    return LatentInput(x, z * process.ignorance(x_t, sigma)[..., None])
