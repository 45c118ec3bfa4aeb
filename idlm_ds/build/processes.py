"""Diffusion families and their samplers by name."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from idlm_ds.errors import UserError
from idlm_ds.processes.base import Process
from idlm_ds.processes.by_name import hard_process, schedule_by_name
from idlm_ds.processes.duo import Duo
from idlm_ds.recipes.schema import EvalSection, ProcessSection
from idlm_ds.recipes.typed import build
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.schedules.gaussian import DuoClock, GaussianClock, GaussianMap, TokenClock
from idlm_ds.schedules.loglinear import LogLinear

SCHEDULE_KEYS = {
    "loglinear": ("eps",),
    "cosine": ("eps",),
    "geometric": ("sigma_min", "sigma_max"),
}
"""What each schedule is a function of."""

KIN = {"duo": ("duo", "udlm")}
"""Families whose networks another family can use, where that is not only its own."""


def vocabulary_of(section: ProcessSection, words: int) -> tuple[int, int]:
    """Size and mask of the vocabulary that a new model gets over a tokenizer's words.

    By default one id is added. It is the mask of the absorbing families. In the uniform ones it is
    a state like any other, which never occurs in data; published networks have it too.

    Raises:
        UserError: The recipe names a mask that is no word of the tokenizer.
    """
    if section.mask_id is None:
        return words + 1, words
    if section.mask_id >= words:
        raise UserError(
            f"process.mask_id: {section.mask_id} is no id of data.tokenizer, which has {words}; "
            "null adds one"
        )
    return words, section.mask_id


def make_process(section: ProcessSection, vocab_size: int, mask_id: int) -> Process:
    """Build a diffusion family.

    Args:
        section: Family and noise.
        vocab_size: Ids the network knows.
        mask_id: The mask of the absorbing families; the others have none.
    """
    told = asdict(section)
    if section.name != "duo":
        return hard_process(told, vocab_size=vocab_size, mask_id=mask_id)
    clock, schedule = _clock(section, GaussianMap(vocab_size)), schedule_by_name(told)
    return Duo(vocab_size=vocab_size, schedule=schedule, clock=clock, tau=section.tau)


def _clock(section: ProcessSection, token_map: GaussianMap) -> DuoClock:
    if section.clock == "gaussian":
        return GaussianClock(token_map, section.gamma_min, section.gamma_max)
    return TokenClock(token_map, LogLinear(section.eps))


def make_sampler_config(section: EvalSection, process: Process) -> SamplerConfig:
    """How a recipe has samples drawn from a family; steps are set row by row.

    Raises:
        UserError: The family has no such sampler.
    """
    chain = SamplerConfig(
        steps=section.steps[-1],
        sampler=section.sampler,
        precision=section.precision,
        tail=section.tail,
        nucleus=section.nucleus,
    )
    try:
        chain.reverse_step(process)
    except ValueError as error:
        raise UserError(f"eval.{error}") from error
    return chain


def read_family(found: Mapping[str, Any], path: Path) -> ProcessSection:
    """Read the family that a model names.

    Raises:
        UserError: It is none of those known here.
    """
    known = {f.name for f in fields(ProcessSection)}
    try:
        return build(ProcessSection, {k: v for k, v in found.items() if k in known}, "process")
    except UserError as error:
        raise UserError(f"{path}: no known family: {error}") from error


def check_kin(asked: ProcessSection, told: Mapping[str, Any], path: Path) -> None:
    """Hold a recipe's family against what a model says of the one it was trained in.

    Args:
        asked: The recipe's.
        told: Keys and values of a ``process`` section, as far as the model tells them.
        path: The model, for messages.

    Raises:
        UserError: The model's answers mean something else, or belong to other noise.
    """
    trained = told.get("name", asked.name)
    if trained not in KIN.get(asked.name, (asked.name,)):
        raise UserError(f"process.name: {asked.name!r}, but {path} was trained with {trained!r}")
    for key in ("schedule", *SCHEDULE_KEYS[asked.schedule]):
        wanted, found = getattr(asked, key), told.get(key)
        if found is not None and wanted != found:
            raise UserError(f"process.{key}: {wanted!r}, but {path} was trained with {found!r}")
