"""The section ``checkpoint`` of a recipe."""

import math
from dataclasses import dataclass
from typing import ClassVar

from idlm_ds.recipes.sections import Section


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointSection(Section):
    """When a run is saved."""

    prefix: ClassVar[str] = "checkpoint"
    every: int = 100
    """Student updates (in pretraining: steps) between checkpoints; 0 = only at the end."""
    every_minutes: float = 0.0
    """Minutes after which one is written as well, counted from the last; 0 = never by time."""
    keep: int = 2
    """Newest checkpoints kept; at least 1."""
    keep_every_hours: float = 0.0
    """Beside these, one that is this many hours younger than the last kept; 0 = no other."""
    asynchronous: bool = False
    """Train on while a copy of the trained state is written: in host memory, 16 bytes a parameter
    of each trained network, over all processes. Off, as that memory may not be there."""

    def __post_init__(self) -> None:
        self._require_at_least(0, "every")
        self._require_at_least(1, "keep")
        for field in ("every_minutes", "keep_every_hours"):
            self._require(field, 0 <= getattr(self, field) < math.inf, "0 or more")
