"""Diffusion families and their samplers by name."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from idlm_ds.errors import UserError
from idlm_ds.processes.base import Process
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.processes.udlm import UDLM
from idlm_ds.recipes.schema import EvalSection, ProcessSection
from idlm_ds.recipes.typed import build
from idlm_ds.samplers.chain import Chain
from idlm_ds.schedules.base import NoiseSchedule
from idlm_ds.schedules.cosine import Cosine
from idlm_ds.schedules.gaussian import DuoClock, GaussianClock, GaussianMap, TokenClock
from idlm_ds.schedules.geometric import Geometric
from idlm_ds.schedules.loglinear import LogLinear

SCHEDULE_KEYS = {
    "loglinear": ("eps",),
    "cosine": ("eps",),
    "geometric": ("sigma_min", "sigma_max"),
}
"""What each schedule is a function of."""

KIN = {"duo": ("duo", "udlm")}
"""Families whose networks another family can use, where that is not only its own."""


def make_process(section: ProcessSection, tokenizer_size: int) -> Process:
    """Build a diffusion family over a tokenizer's ids and one more.

    That one is the mask of the absorbing families. In the uniform ones it is a state like any
    other, which never occurs in data; published networks have it too.
    """
    vocab_size, schedule = tokenizer_size + 1, make_schedule(section)
    match section.name:
        case "mdlm":
            return MDLM(vocab_size=vocab_size, schedule=schedule, mask_id=tokenizer_size)
        case "sedd":
            return SEDD(vocab_size=vocab_size, schedule=schedule, mask_id=tokenizer_size)
        case "udlm":
            return UDLM(vocab_size=vocab_size, schedule=schedule)
        case "duo":
            clock = _clock(section, GaussianMap(vocab_size))
            return Duo(vocab_size=vocab_size, schedule=schedule, clock=clock, tau=section.tau)


def make_schedule(section: ProcessSection) -> NoiseSchedule:
    """Build the schedule a reverse chain walks on."""
    match section.schedule:
        case "loglinear":
            return LogLinear(section.eps)
        case "cosine":
            return Cosine(section.eps)
        case "geometric":
            return Geometric(section.sigma_min, section.sigma_max)


def _clock(section: ProcessSection, token_map: GaussianMap) -> DuoClock:
    if section.clock == "gaussian":
        return GaussianClock(token_map, section.gamma_min, section.gamma_max)
    return TokenClock(token_map, LogLinear(section.eps))


def make_chain(section: EvalSection, process: Process) -> Chain:
    """How a recipe has samples drawn from a family; steps are set row by row.

    Raises:
        UserError: The family has no such sampler.
    """
    chain = Chain(
        steps=section.steps[-1],
        sampler=section.sampler,
        precision=section.precision,
        tail=section.tail,
        nucleus=section.nucleus,
    )
    try:
        chain.move(process)
    except ValueError as error:
        raise UserError(f"eval.{error}") from error
    return chain


def read_family(found: Mapping[str, Any], folder: Path) -> ProcessSection:
    """Read the family that a model folder names.

    Raises:
        UserError: It is none of those known here.
    """
    known = {f.name for f in fields(ProcessSection)}
    try:
        return build(ProcessSection, {k: v for k, v in found.items() if k in known}, "process")
    except UserError as error:
        raise UserError(f"{folder}: no known family: {error}") from error


def check_kin(asked: ProcessSection, trained: ProcessSection, folder: Path) -> None:
    """Hold a recipe's family against the one a teacher was trained with.

    Raises:
        UserError: The teacher's answers mean something else, or belong to other noise.
    """
    if trained.name not in KIN.get(asked.name, (asked.name,)):
        raise UserError(
            f"process.name: {asked.name!r}, but {folder} was trained with {trained.name!r}"
        )
    for key in ("schedule", *SCHEDULE_KEYS[asked.schedule]):
        wanted, found = getattr(asked, key), getattr(trained, key)
        if wanted != found:
            raise UserError(f"process.{key}: {wanted!r}, but {folder} was trained with {found!r}")
