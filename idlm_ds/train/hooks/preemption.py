"""A run that makes room when a signal asks for it, on all ranks at the same boundary."""

from typing import TYPE_CHECKING, final

import torch

from idlm_ds.train import signals
from idlm_ds.train.loop import PhaseRecord, Stop

if TYPE_CHECKING:  # imports DeepSpeed, which a stub of it does not need
    from idlm_ds.engine.dist import World


def signals_on_any_rank(world: "World") -> str:
    """Name the signals that any rank has received; empty where there are none.

    The step's own all-reduce is left alone: a longer vector may be summed in another order.

    Collective: every rank must call; one all-reduce of three numbers where there are several.
    """
    own = signals.received()
    if world.size == 1:
        return signals.names(own)
    return signals.names(world.sum(torch.tensor(own, dtype=torch.float32)).tolist())


@final
class Preemption:
    """Ends the run after the phase in which a signal arrived."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.done = 0
        """Phases done."""

    def after_phase(self, record: PhaseRecord) -> Stop | None:
        """See ``Hook``. Collective: every rank must have this hook."""
        self.done = record.step + 1
        names = signals_on_any_rank(self._world)
        return Stop(f"{names} received", is_preemption=True) if names else None

    def close(self) -> None:
        """See ``Hook``."""
