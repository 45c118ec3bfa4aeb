"""One network learns, the others only transmit: the rule of the three engines.

What training needs of a network stands here as protocols, so that a stub of a few lines can take
the place of a DeepSpeed engine.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
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

    def lent(self) -> AbstractContextManager[Denoiser]:
        """Lend the bare network to another one's loss."""

    def release(self) -> None:
        """Give back what a finished pass left gathered."""


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
    with ExitStack() as stack:
        idle = {n: stack.enter_context(r.lent()) for n, r in roles.items() if n != learner}
        yield {**idle, learner: stack.enter_context(active.learning())}


def end_pass(roles: Mapping[str, Borrowed], learner: str) -> None:
    """End a pass: after the backward of a micro-batch nothing that was lent stays gathered.

    Args:
        roles: All networks of the run, by role.
        learner: The one that learns.
    """
    for name, role in roles.items():
        if name != learner:
            role.release()
