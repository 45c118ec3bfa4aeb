"""A network on disk: ``config.json``, ``model.safetensors`` and its tokenizer.

A diffusion network's configuration is this package's own; an autoregressive one is written as
Hugging Face GPT-2, which ``AutoModelForCausalLM`` loads.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from idlm_ds.checkpoints.tensors import save_tensors
from idlm_ds.errors import UserError
from idlm_ds.files import write_atomic

FORMAT = "idlm_ds.network/1"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAX_JSON = 32 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkCard:
    """Description of a diffusion network: all that is needed to use it."""

    network: Mapping[str, Any]
    """Arguments of its configuration class, ``kind`` included."""

    process: Mapping[str, Any]
    """Family and schedule it was trained with."""

    length: int
    """Positions of a training sequence."""

    def fields(self) -> dict[str, Any]:
        """Content of ``config.json``."""
        return {"format": FORMAT, **asdict(self)}


def read_card(folder: Path) -> NetworkCard:
    """Read ``config.json``.

    Raises:
        UserError: The folder or file is missing or is not of this format.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder}: no {CONFIG} there; expected a folder of this package")
    fields = read_json(path)
    if fields.get("format") != FORMAT:
        raise UserError(f"{path}: format must be {FORMAT!r}; this is another kind of model")
    try:
        return NetworkCard(
            network=dict(fields["network"]),
            process=dict(fields["process"]),
            length=int(fields["length"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: incomplete or ill-typed: {error}") from error


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


def write_network(
    folder: Path,
    card: NetworkCard | Mapping[str, Any],
    weights: Mapping[str, Tensor],
    *,
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write a configuration and weights; the weights appear whole or not at all.

    Args:
        folder: Created where missing.
        card: This package's card, or a Hugging Face configuration.
        weights: Full tensors by name.
        origin: How the network came about; kept in the configuration for people to read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fields = card.fields() if isinstance(card, NetworkCard) else dict(card)
    if origin is not None:
        fields["origin"] = dict(origin)
    temporary = folder / f".{WEIGHTS}"
    save_tensors(temporary, {k: t.contiguous() for k, t in weights.items()}, {"format": "pt"})
    write_atomic(folder / CONFIG, (json.dumps(fields, indent=2) + "\n").encode())
    os.replace(temporary, folder / WEIGHTS)
