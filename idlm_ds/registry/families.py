"""Diffusion families and their noise schedules."""

from dataclasses import dataclass
from typing import final

from idlm_ds.registry.table import by_name


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """A diffusion family."""

    name: str
    entry_point: str
    """Class of its process."""

    is_masked: bool
    """Whether noise is a mask; else any token replaces any other."""

    sees_time: bool
    """Whether its networks are conditioned on the noise level, where nothing says otherwise."""

    published_as: tuple[str, ...] = ()
    """Other names of it in the configurations of published training programs."""

    sampled_as: str = ""
    """The family whose reverse chain is also this one's; empty for its own."""

    settings: tuple[str, ...] = ()
    """Keys of a recipe's ``process`` that only this family has."""


FAMILIES = by_name(
    (
        Family(
            name="mdlm",
            entry_point="idlm_ds.processes.mdlm:MDLM",
            is_masked=True,
            sees_time=False,
            published_as=("subs",),
        ),
        Family(
            name="sedd",
            entry_point="idlm_ds.processes.sedd:SEDD",
            is_masked=True,
            sees_time=True,
        ),
        Family(
            name="udlm",
            entry_point="idlm_ds.processes.udlm:UDLM",
            is_masked=False,
            sees_time=True,
        ),
        Family(
            name="duo",
            entry_point="idlm_ds.processes.duo:Duo",
            is_masked=False,
            sees_time=True,
            # DCD, which trains Duo's, calls itself "distillation".
            published_as=("duo_base", "distillation"),
            sampled_as="udlm",
            settings=("clock", "gamma_min", "gamma_max", "tau"),
        ),
    )
)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """A noise schedule."""

    name: str
    entry_point: str
    settings: tuple[str, ...]
    """Keys of a recipe's ``process`` that it is a function of, in the order of its arguments."""


SCHEDULES = by_name(
    (
        Schedule(
            name="loglinear",
            entry_point="idlm_ds.schedules.loglinear:LogLinear",
            settings=("eps",),
        ),
        Schedule(name="cosine", entry_point="idlm_ds.schedules.cosine:Cosine", settings=("eps",)),
        Schedule(
            name="geometric",
            entry_point="idlm_ds.schedules.geometric:Geometric",
            settings=("sigma_min", "sigma_max"),
        ),
    )
)
