"""Training methods."""

from dataclasses import dataclass
from typing import final

from idlm_ds.registry.families import FAMILIES
from idlm_ds.registry.table import NamedRow, by_name


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class MethodRow(NamedRow):
    """A way to train a network; its entry point makes an ``objectives.base.Method``."""

    is_masked: bool | None = None
    """Whether it is defined for masked families only, for all others only, or for all (None)."""

    takes: tuple[str, ...] = ()
    """Its arguments beside process and ``t_min``: ``WITH_FAKE``, or ``rounds``."""

    @property
    def families(self) -> tuple[str, ...]:
        """Families it is defined for."""
        rows = FAMILIES.values()
        return tuple(f.name for f in rows if self.is_masked in (None, f.is_masked))


WITH_FAKE = ("plan", "input_t_min", "full_noise_fraction", "noisings", "latent")
"""Arguments of methods in which a student answers noised data and a fake learns from it."""

METHODS = by_name(
    MethodRow(name="idlm", entry_point="idlm_ds.objectives.idlm:IDLM", takes=WITH_FAKE),
    MethodRow(name="dmd", entry_point="idlm_ds.objectives.idlm:dmd", takes=WITH_FAKE),
    MethodRow(
        name="sdtt",
        entry_point="idlm_ds.objectives.self_distillation:SDTT",
        is_masked=True,
        takes=("rounds",),
    ),
    MethodRow(
        name="dcd",
        entry_point="idlm_ds.objectives.self_distillation:DCD",
        is_masked=False,
        takes=("rounds",),
    ),
)
"""Distillation methods."""

OBJECTIVES = by_name(
    MethodRow(name="nelbo", entry_point="idlm_ds.objectives.pretrain:Nelbo"),
    MethodRow(name="ar", entry_point="idlm_ds.objectives.pretrain:NextToken"),
)
"""Pretraining methods."""
