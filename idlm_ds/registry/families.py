"""Diffusion families, their noise schedules and the clocks that some of them train on."""

from dataclasses import dataclass
from typing import final

from idlm_ds.registry.table import NamedRow, by_name, look_up


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyRow(NamedRow):
    """A diffusion family; its entry point is a ``processes.base.Process``."""

    is_masked: bool
    """Whether noise is a mask; else any token replaces any other."""

    sees_time: bool
    """Whether its networks are conditioned on the noise level, where nothing says otherwise."""

    published_as: tuple[str, ...] = ()
    """Other names of it in the configurations of published training programs."""

    found_in_names: tuple[str, ...] = ()
    """Other words that give it away in the names of published models and their classes."""

    sampled_as: str = ""
    """The family whose reverse chain is also this one's; empty for its own."""

    settings: tuple[str, ...] = ()
    """Keys of a recipe's ``process`` that only this family has."""


FAMILIES = by_name(
    FamilyRow(
        name="mdlm",
        entry_point="idlm_ds.processes.mdlm:MDLM",
        is_masked=True,
        sees_time=False,
        published_as=("subs",),
    ),
    FamilyRow(
        name="sedd", entry_point="idlm_ds.processes.sedd:SEDD", is_masked=True, sees_time=True
    ),
    FamilyRow(
        name="udlm",
        entry_point="idlm_ds.processes.udlm:UDLM",
        is_masked=False,
        sees_time=True,
        settings=("unbiased",),
    ),
    FamilyRow(
        name="duo",
        entry_point="idlm_ds.processes.duo:Duo",
        is_masked=False,
        sees_time=True,
        # DCD, which trains networks of Duo, calls itself "distillation".
        published_as=("duo_base", "distillation"),
        found_in_names=("dcd",),
        sampled_as="udlm",
        settings=("clock", "gamma_min", "gamma_max", "tau", "relaxation", "unbiased"),
    ),
)


def is_masked(name: str | None) -> bool:
    """Whether a family is known and its noise is a mask."""
    family = FAMILIES.get(name or "")
    return family is not None and family.is_masked


def sees_time(name: str | None) -> bool | None:
    """Whether networks of a family are conditioned on the noise level; None if it is unknown."""
    family = FAMILIES.get(name or "")
    return None if family is None else family.sees_time


def sampled_as(name: object) -> str:
    """Return the family whose reverse chain a family has: usually its own.

    Raises:
        ValueError: There is no such family.
    """
    family = look_up(FAMILIES, name, "process.name")
    return family.sampled_as or family.name


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleRow(NamedRow):
    """A noise schedule, a ``schedules.base.NoiseSchedule``, or a clock."""

    settings: tuple[str, ...]
    """Keys of a recipe's ``process`` that it is a function of, in the order of its arguments."""


SCHEDULES = by_name(
    ScheduleRow(
        name="loglinear", entry_point="idlm_ds.schedules.loglinear:LogLinear", settings=("eps",)
    ),
    ScheduleRow(name="cosine", entry_point="idlm_ds.schedules.cosine:Cosine", settings=("eps",)),
    ScheduleRow(
        name="geometric",
        entry_point="idlm_ds.schedules.geometric:Geometric",
        settings=("sigma_min", "sigma_max"),
    ),
)

CLOCKS = by_name(
    ScheduleRow(
        name="gaussian",
        entry_point="idlm_ds.schedules.gaussian:GaussianClock",
        settings=("gamma_min", "gamma_max"),
    ),
    ScheduleRow(
        name="loglinear",
        entry_point="idlm_ds.schedules.gaussian:TokenClock.loglinear",
        settings=("eps",),
    ),
)
"""Clocks of Duo's training; before its settings, each takes a ``GaussianMap``."""


PROBABILITIES, STRAIGHT_THROUGH, WORD = "probabilities", "straight_through", "word"

RELAXATIONS = (PROBABILITIES, STRAIGHT_THROUGH, WORD)
"""What Duo noises of a soft target: the vector of its probabilities, as published; a word drawn
from it, with a gradient to its probabilities all the same; or such a word, without one."""
