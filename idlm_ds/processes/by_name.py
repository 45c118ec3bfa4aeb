"""Families and schedules by their names in a configuration."""

from collections.abc import Mapping
from typing import Any

from idlm_ds.processes.base import Process
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.processes.udlm import UDLM
from idlm_ds.schedules.base import NoiseSchedule
from idlm_ds.schedules.cosine import Cosine
from idlm_ds.schedules.geometric import Geometric
from idlm_ds.schedules.loglinear import LogLinear


def hard_process(told: Mapping[str, Any], *, vocab_size: int, mask_id: int | None) -> Process:
    """Build a family as its reverse steps and its losses on hard tokens know it.

    So ``duo`` is built as ``udlm``: what sets it apart is the relaxed input of its training.

    Args:
        told: Its ``name``, its ``schedule`` and what that is a function of.
        vocab_size: Ids the network knows, the mask included.
        mask_id: None in families without a mask.

    Raises:
        ValueError: The name is unknown, or a mask is missing.
    """
    name, schedule = told.get("name"), schedule_by_name(told)
    if name in ("udlm", "duo"):
        return UDLM(vocab_size=vocab_size, schedule=schedule)
    if name not in ("mdlm", "sedd"):
        raise ValueError(f"process.name must be mdlm, sedd, udlm or duo, got {name!r}")
    if mask_id is None:
        raise ValueError(f"mask_token_id: {name} needs one")
    family = MDLM if name == "mdlm" else SEDD
    return family(vocab_size=vocab_size, schedule=schedule, mask_id=mask_id)


def schedule_by_name(told: Mapping[str, Any]) -> NoiseSchedule:
    """Build the schedule a reverse chain walks on.

    Raises:
        ValueError: The name is unknown.
    """
    match told.get("schedule"):
        case "loglinear":
            return LogLinear(told["eps"])
        case "cosine":
            return Cosine(told["eps"])
        case "geometric":
            return Geometric(told["sigma_min"], told["sigma_max"])
    raise ValueError(
        f"process.schedule must be loglinear, cosine or geometric, got {told.get('schedule')!r}"
    )
