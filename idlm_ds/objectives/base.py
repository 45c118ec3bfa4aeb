"""Interface of training methods."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.objectives.alternation import Phase, PhasePlan
from idlm_ds.processes.base import Denoiser
from idlm_ds.tensor_types import Scalar, Time, TokenIds


@dataclass(frozen=True, slots=True)
class StepInput:
    """One micro-batch of one phase, and all its randomness."""

    tokens: TokenIds
    """Clean data."""

    times: Mapping[str, Time]
    """Diffusion times by use, one per sequence; see ``Method.smallest_times``."""

    noise: Noise
    """One stream per sequence."""

    step: int
    """Index of the phase, counted from 0."""

    is_logged: bool = False
    """Whether metrics are wanted; without them a step costs less."""


@dataclass(frozen=True, slots=True)
class StepLoss:
    """Loss of one micro-batch, with the graph to the parameters that learn, and its metrics."""

    nats: Tensor
    """One number a position, or sums over some of them; positions that are absent cost nothing."""

    metrics: Mapping[str, Float64[Tensor, "2"]] = field(default_factory=dict)
    """Sum and count of each figure, so that micro-batches and ranks add up; no graph."""

    is_value: bool = True
    """Whether ``nats`` is the loss; otherwise only its gradient is, and it is finite if the loss
    is."""


class Method(ABC):
    """A way to train: which network learns when, on which loss.

    Implementations get networks as callables and know no engine and no process group.
    """

    plan: PhasePlan
    """The phase of each step."""

    loss_names: ClassVar[Mapping[Phase, str]]
    """Name of each phase's loss on the console."""

    @property
    @abstractmethod
    def smallest_times(self) -> Mapping[str, float]:
        """Smallest diffusion time drawn, by the use of the time."""

    @abstractmethod
    def loss(self, phase: Phase, networks: Mapping[str, Denoiser], batch: StepInput) -> StepLoss:
        """Compute the loss of the network that learns in ``phase``.

        Args:
            phase: The phase of this step.
            networks: All networks of the run by role; only the one that learns has trainable
                parameters.
            batch: Data, times and noise.

        Units: nats.
        """


def mean_of(values: Tensor, *, count: int | None = None) -> Float64[Tensor, "2"]:
    """Return sum and count of a metric.

    Args:
        values: Its values.
        count: What to divide by, where that is not how many values there are.
    """
    number = values.numel() if count is None else count
    total = values.detach().sum(dtype=torch.float64)
    return torch.stack([total, torch.full_like(total, number)])


def batch_loss(
    nats: Tensor,
    *,
    reduction: Literal["mean", "sum"],
    global_batch: int,
    length: int,
    world: int,
) -> Scalar:
    """Reduce one micro-batch of one rank.

    Summed over the micro-batches of a rank and averaged over the ranks (which is what the
    engine does to gradients) this is the mean over the global batch of the mean, or the sum,
    over the positions of a sequence. Positions absent from ``nats`` cost nothing but count.

    Precision: summed in float64, since the gap is a small difference of large losses.
    """
    per_sequence = length if reduction == "mean" else 1
    return nats.sum(dtype=torch.float64) * (world / (global_batch * per_sequence))
