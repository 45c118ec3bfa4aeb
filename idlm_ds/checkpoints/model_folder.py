"""A network on disk: ``config.json``, ``model.safetensors`` or its shards, and its tokenizer.

A diffusion network's configuration is this package's own; an autoregressive one is written as
Hugging Face GPT-2, which ``AutoModelForCausalLM`` loads.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from idlm_ds.checkpoints.json_files import read_json
from idlm_ds.checkpoints.weight_files import SHARD_SIZE, Stream, weights_written
from idlm_ds.errors import UserError
from idlm_ds.files import write_atomic

FORMAT = "idlm_ds.network/1"
CONFIG = "config.json"


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


def write_network(
    folder: Path,
    card: NetworkCard | Mapping[str, Any],
    weights: Mapping[str, Tensor] | Stream,
    *,
    origin: Mapping[str, Any] | None = None,
    max_shard_size: str = SHARD_SIZE,
) -> None:
    """Write a configuration and weights; the weights appear whole or not at all.

    Args:
        folder: Created where missing.
        card: This package's card, or a Hugging Face configuration.
        weights: Full tensors by name.
        origin: How the network came about; kept in the configuration for people to read.
        max_shard_size: Like ``5GB``; larger weights are cut into files of at most that.

    Raises:
        UserError: ``max_shard_size`` is no size.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fields = card.fields() if isinstance(card, NetworkCard) else dict(card)
    if origin is not None:
        fields["origin"] = dict(origin)
    stream = weights if isinstance(weights, Stream) else Stream.of(weights)
    with weights_written(folder, stream, max_shard_size=max_shard_size):
        write_atomic(folder / CONFIG, (json.dumps(fields, indent=2) + "\n").encode())
