"""Reading a DeepSpeed file strictly, against the table of fields.

Whatever DeepSpeed would ignore, or stop at with a traceback once engines start, is one line here.
Neither torch nor DeepSpeed is imported.
"""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from idlm_ds.engine.json_fields import FIELDS, HANDED_ON, SECTIONS
from idlm_ds.engine.json_values import Ours, Rejected, Works, shown
from idlm_ds.errors import UserError

LARGEST = 2**20
"""Bytes of a file that is read at all."""

ZERO = "zero_optimization"
OFFLOADS = ("offload_optimizer", "offload_param")


def read_fields(path: Path) -> dict[str, Any]:
    """Read the fields of a file; whole numbers become ``int``, and what is not offloaded goes.

    Raises:
        UserError: The file is missing, not JSON, or has a field that is unknown, refused, of
            another type or range, or that does nothing at its ZeRO stage.
    """
    label = str(path) if len(str(path)) <= 90 else "..." + str(path)[-87:]
    try:
        return _checked(_parsed(path))
    except FileNotFoundError as error:
        raise UserError(printable(f"--config: no such file: {label}")) from error
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise UserError(printable(f"--config {label}: {text}")) from error


def printable(line: str) -> str:
    """Return at most 193 printable characters, which "error: " makes 200."""
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= 193 else line[:190] + "..."


def _parsed(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"not readable as JSON: larger than {LARGEST} bytes")
    try:
        fields = json.loads(
            data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except RecursionError as error:
        raise ValueError("not readable as JSON: nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"not readable as JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"expected an object, got {type(fields).__name__}")
    return fields


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise ValueError(f"{shown(key)} appears twice")
        fields[key] = value
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    for key in fields:
        if key not in FIELDS and key not in SECTIONS:
            raise ValueError(_unknown(key, ""))
    stage = _stage(fields.get(ZERO))
    checked = _section("", fields, stage)
    for name in OFFLOADS:
        if (offload := checked[ZERO].get(name)) is None:
            continue
        if "device" not in offload:
            raise ValueError(f"{ZERO}.{name}.device: is missing; write cpu, or leave out {name}")
        if offload["device"] == "none":
            del checked[ZERO][name]
    return checked


def _stage(zero: Any) -> int:
    if not isinstance(zero, dict) or "stage" not in zero:
        raise ValueError(f"{ZERO}.stage is required (1, 2 or 3)")
    stage = zero["stage"]
    if isinstance(stage, bool) or not isinstance(stage, int | float) or stage not in (1, 2, 3):
        raise ValueError(
            f"{ZERO}.stage is {shown(stage)}; allowed: 1, 2, 3 "
            "(stage 0 uses another optimizer class and other numbers; 1 shards only its state)"
        )
    return int(stage)


def _section(name: str, fields: Mapping[str, Any], stage: int) -> dict[str, Any]:
    checked = {}
    for key, raw in fields.items():
        dotted = f"{name}.{key}" if name else key
        row = FIELDS.get(dotted)
        if dotted in SECTIONS:
            if not isinstance(raw, dict):
                raise ValueError(f"{dotted}: must be an object of fields, got {shown(raw)}")
            checked[key] = _section(dotted, raw, stage)
        elif row is None:
            raise ValueError(_unknown(key, name))
        elif isinstance(row, Rejected):
            raise ValueError(f"{dotted}: {row.reason}")
        else:
            checked[key] = raw if isinstance(row, Ours) else _value(dotted, row, raw, stage)
    return checked


def _value(dotted: str, row: Works, raw: Any, stage: int) -> Any:
    try:
        value = row.value.read(raw)
    except ValueError as error:
        why = f"; {row.why}" if row.why else ""
        raise ValueError(f"{dotted}: must be {row.value.rule}, got {shown(raw)}{why}") from error
    if stage not in row.stages:
        stages = " and ".join(map(str, row.stages))
        raise ValueError(f"{dotted}: does something at stage {stages} only, and this is {stage}")
    return value


def _unknown(key: str, section: str) -> str:
    """Say that a field is unknown, with the nearest one that a file may set."""
    start = f"{section}." if section else ""
    known = {
        dotted.removeprefix(start).split(".")[0]
        for dotted, row in FIELDS.items()
        if dotted.startswith(start) and not isinstance(row, Rejected)
    }
    name = key if key.isascii() and key.isidentifier() and len(key) <= 60 else shown(key)
    if near := difflib.get_close_matches(key[:100], sorted(known), n=1):
        return f"{start}{name}: unknown field; did you mean {near[0]}?"
    if section:
        return f"{start}{name}: unknown field"
    return f"{name}: unknown field; known: {', '.join(sorted(HANDED_ON, reverse=True))}"
