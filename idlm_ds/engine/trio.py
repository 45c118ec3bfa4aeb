"""One network learns, the others only transmit: the rule of the three engines.

What training needs of a network stands here as protocols, so that a stub of a few lines can take
the place of a DeepSpeed engine.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor, nn

from idlm_ds.processes.base import Denoiser

if TYPE_CHECKING:  # imports DeepSpeed
    from idlm_ds.engine.ema import Ema


class Borrowed(Protocol):
    """A network that another one's loss may pass through."""

    @property
    def module(self) -> nn.Module:
        """The bare network; gradients pass to its input and reach none of its parameters."""

    def release(self) -> None:
        """Give back what was gathered for it."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one optimizer step did."""

    grad_norm: float
    lr: float
    was_applied: bool


@runtime_checkable
class Learner(Borrowed, Protocol):
    """A network that can learn as well, though never while it is borrowed."""

    updates: int
    """Optimizer steps applied so far."""

    @property
    def ema(self) -> "Ema":
        """The running mean of its weights."""

    def learning(self) -> AbstractContextManager[Callable[..., Tensor]]:
        """Open it for learning; yields its forward, which makes a graph to its parameters."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss that its own graph leads to."""

    def step(self, lr: float) -> StepReport:
        """Update its weights, then their running mean."""


@contextmanager
def one_learns(roles: Mapping[str, Borrowed], learner: str) -> Iterator[Mapping[str, Denoiser]]:
    """Open a phase: one network learns, all others may only transmit.

    Gradients still pass through the idle networks to their inputs, but reach none of their
    parameters, and dropout is on in the learning network alone. Idle networks are called as bare
    modules: as engines they would raise, or spoil their own next gradient in silence.

    Args:
        roles: All networks of the run, by role.
        learner: The one that learns.
    """
    active = roles[learner]
    assert isinstance(active, Learner), f"{learner} does not learn"
    with active.learning() as forward:
        try:
            idle = {name: role.module for name, role in roles.items()}
            yield {**idle, learner: forward}
        finally:
            for role in roles.values():
                role.release()
