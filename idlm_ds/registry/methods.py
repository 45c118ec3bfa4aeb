"""Training methods."""

from dataclasses import dataclass
from typing import final

from idlm_ds.registry.table import by_name


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A way to train a network."""

    name: str
    entry_point: str
    """Class of the method; see ``objectives.base.Method``."""

    families: tuple[str, ...] = ()
    """Families it is defined for; empty for all."""

    is_in_rounds: bool = False
    """Whether the student learns from its former self instead of with a fake."""


METHODS = by_name(
    (
        Method(name="idlm", entry_point="idlm_ds.objectives.idlm:IDLM"),
        Method(name="dmd", entry_point="idlm_ds.objectives.idlm:DMD"),
        Method(
            name="sdtt",
            entry_point="idlm_ds.objectives.self_distillation:SDTT",
            families=("mdlm", "sedd"),
            is_in_rounds=True,
        ),
        Method(
            name="dcd",
            entry_point="idlm_ds.objectives.self_distillation:DCD",
            families=("duo", "udlm"),
            is_in_rounds=True,
        ),
    )
)
"""Distillation methods."""

OBJECTIVES = by_name(
    (
        Method(name="nelbo", entry_point="idlm_ds.objectives.pretrain:Nelbo"),
        Method(name="ar", entry_point="idlm_ds.objectives.pretrain:NextToken"),
    )
)
"""Pretraining methods."""
