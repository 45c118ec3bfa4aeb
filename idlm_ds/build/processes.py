"""Diffusion families and samplers of recipes, checked against tokenizers and models."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from idlm_ds.errors import UserError
from idlm_ds.processes.base import Process
from idlm_ds.recipes.evaluation import EvalSection
from idlm_ds.recipes.sections import ProcessSection
from idlm_ds.recipes.typed import build
from idlm_ds.registry.families import SCHEDULES, sampled_as
from idlm_ds.samplers.block_config import AnySampler, BlockwiseConfig
from idlm_ds.samplers.blockwise import Remasking
from idlm_ds.samplers.config import SamplerConfig


def vocabulary_of(section: ProcessSection, num_tokens: int) -> tuple[int, int]:
    """Size and mask of the vocabulary that a new model gets over a tokenizer's tokens.

    By default one id is added. It is the mask of the absorbing families. In the uniform ones it is
    a state like any other, which never occurs in data; published networks have it too.

    Raises:
        UserError: The recipe names a mask that is no id of the tokenizer.
    """
    if section.mask_id is None:
        return num_tokens + 1, num_tokens
    if section.mask_id >= num_tokens:
        raise UserError(
            f"process.mask_id: {section.mask_id} is no id of data.tokenizer, which has "
            f"{num_tokens}; null adds one"
        )
    return num_tokens, section.mask_id


def make_sampler_config(section: EvalSection, process: Process, length: int) -> AnySampler:
    """Take a recipe's settings for drawing sequences of ``length``; steps are set row by row.

    Raises:
        UserError: The family has no such sampler.
    """
    steps = section.steps[-1]
    try:
        if section.is_blockwise:
            block, remasking = section.block or length, cast(Remasking, section.remasking)
            blocks = BlockwiseConfig(steps=steps, block=block, remasking=remasking)
            blocks.check(process, length)
            return blocks
        chain = SamplerConfig(
            steps=steps,
            sampler=section.sampler,
            precision=section.precision,
            tail=section.tail,
            nucleus=section.nucleus,
        )
        chain.reverse_step(process)
    except ValueError as error:
        raise UserError(f"eval.{error}") from error
    return chain


def read_family(settings: Mapping[str, Any], path: Path) -> ProcessSection:
    """Read the family that a model states; keys that are no recipe's are ignored.

    Raises:
        UserError: It is none of those known here.
    """
    known = {f.name for f in fields(ProcessSection)}
    try:
        return build(ProcessSection, {k: v for k, v in settings.items() if k in known}, "process")
    except UserError as error:
        raise UserError(f"{path}: no known family: {error}") from error


def check_family(section: ProcessSection, trained: Mapping[str, Any], path: Path) -> None:
    """Check that a network can be used in a recipe's family; ``trained`` is what its model states.

    Networks of a family and of the one that it is sampled as are alike.

    Raises:
        UserError: It was trained in another family or with other noise.
    """
    family = trained.get("name", section.name)
    if family not in (section.name, sampled_as(section.name)):
        raise UserError(f"process.name: {section.name!r}, but {path} was trained with {family!r}")
    for key in ("schedule", *SCHEDULES[section.schedule].settings):
        wanted, stated = getattr(section, key), trained.get(key)
        if stated is not None and wanted != stated:
            raise UserError(f"process.{key}: {wanted!r}, but {path} was trained with {stated!r}")
