"""Several networks whose projections are at hand together."""

from collections.abc import Callable, Sequence

from torch import Tensor

from idlm_ds.kernels.projection import ScoreRows
from idlm_ds.processes.base import Denoiser, Head
from idlm_ds.tensor_types import NetworkInput, Positions, Time


def read_together(
    networks: Sequence[Denoiser],
    x: NetworkInput,
    sigma: Time,
    positions: Positions,
    use: Callable[..., Tensor],
    *rows: ScoreRows,
) -> Tensor:
    """Run networks on one input, each inside the last one's projection, and return ``use``.

    ``use`` gets the scores of each network at ``positions``, to be computed where it wants them:
    all projections hold their whole weights at that moment, under ZeRO-3 too. What it returns
    passes through the networks around it; a graph that has nothing to do with them should not,
    since ZeRO-3 would gather their weights again in its backward pass.

    Args:
        networks: They run one after the other; each is projected once.
        x: What they are shown.
        sigma: Total noise.
        positions: Where their hidden states are read.
        use: Called with ``rows`` and one ``ScoreRows`` for each network.
        rows: Those of networks that are at hand already.

    Collective: under ZeRO-3 every rank must call, whatever its positions.
    """
    if not networks:
        return use(*rows)
    first, *others = networks

    def inside(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        here = ScoreRows(hidden, weight, bias)
        return read_together(others, x, sigma, positions, use, *rows, here)

    def read(head: Head) -> Tensor:
        return head.fused(inside, positions)

    return first(x, sigma, read)
