"""Objects in JSON files that others wrote."""

import json
from pathlib import Path
from typing import Any

from idlm_ds.errors import UserError

MAX_JSON = 32 * 2**20
"""Bytes."""


def read_json(path: Path) -> dict[str, Any]:
    """Read an object from a JSON file.

    Raises:
        UserError: It is missing, huge or something else.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise UserError(f"{path}: larger than {MAX_JSON} bytes")
        fields = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path.parent}: no {path.name} there") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(fields, dict):
        raise UserError(f"{path}: not a JSON object")
    return fields
