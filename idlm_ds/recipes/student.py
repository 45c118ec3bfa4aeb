"""The section ``student`` of a distillation recipe."""

import math
from dataclasses import dataclass
from typing import ClassVar

from idlm_ds.recipes.sections import Section


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentSection(Section):
    """Random numbers of the student's own beside its tokens; see ``objectives/README.md``."""

    prefix: ClassVar[str] = "student.latent"
    size: int = 0
    """Random numbers a position (idlm, dmd); 0 = none."""
    scale: float = 0.5
    """Size of their projection at the start, in root mean squares of the teacher's embeddings;
    above 0."""
    rate: float = 5.0
    """How much faster than the other weights the projection is learnt; above 0."""

    def __post_init__(self) -> None:
        self._require_at_least(0, "size")
        for field in ("scale", "rate"):
            self._require(field, 0 < getattr(self, field) < math.inf, "above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentSection(Section):
    """What the student has beside the teacher's weights, which it starts from."""

    prefix: ClassVar[str] = "student"
    latent: LatentSection = LatentSection()
    """Random numbers of its own."""
