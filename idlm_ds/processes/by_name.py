"""Families and schedules by the names that recipes and configurations give them."""

from collections.abc import Mapping
from typing import Any

from idlm_ds.processes.base import Process
from idlm_ds.registry.families import FAMILIES, SCHEDULES
from idlm_ds.registry.table import load, look_up
from idlm_ds.schedules.base import NoiseSchedule


def make_process(settings: Mapping[str, Any], vocab_size: int, mask_id: int | None) -> Process:
    """Build a diffusion family.

    Args:
        settings: Its ``name``, its ``schedule`` and what both are functions of; the other keys of
            a recipe's ``process`` are ignored.
        vocab_size: Ids the network knows, the mask included.
        mask_id: Ignored in families without a mask.

    Raises:
        ValueError: A name is unknown, a setting is out of range, or a mask is missing.
    """
    family, schedule = (
        look_up(FAMILIES, settings.get("name"), "process.name"),
        make_schedule(settings),
    )
    arguments: dict[str, Any] = {"vocab_size": vocab_size, "schedule": schedule}
    if family.is_masked:
        if mask_id is None:
            raise ValueError(f"mask_token_id: {family.name} needs one")
        arguments["mask_id"] = mask_id
    process: Process = load(family.entry_point).from_settings(settings, **arguments)
    return process


def make_schedule(settings: Mapping[str, Any]) -> NoiseSchedule:
    """Build the schedule that a reverse chain walks on.

    Raises:
        ValueError: Its name is unknown, or a setting is out of range.
    """
    row = look_up(SCHEDULES, settings.get("schedule"), "process.schedule")
    schedule: NoiseSchedule = load(row.entry_point)(*(settings[key] for key in row.settings))
    return schedule
