"""Folders with a ``config.json``: this package's own and those of Hugging Face."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from idlm_ds.checkpoints.formats.description import Found
from idlm_ds.checkpoints.formats.layouts import PLANS, listed
from idlm_ds.checkpoints.formats.stated import (
    Reader,
    Stated,
    state_hugging_face,
    state_llada,
    state_own,
    state_sedd,
    state_training,
)
from idlm_ds.checkpoints.model_folder import CONFIG, FORMAT, WEIGHTS, read_card
from idlm_ds.checkpoints.pickle_reader.torch_file import TorchFile, TorchWeights, tensors_in
from idlm_ds.checkpoints.tensors import FileWeights, NamedTensors
from idlm_ds.errors import UnsafeCheckpointError, UserError

INDEX, TORCH_WEIGHTS = "model.safetensors.index.json", "pytorch_model.bin"
MAX_JSON = 32 * 2**20


def find_layout(config: Mapping[str, Any]) -> str | None:
    """Say which layout a folder with this ``config.json`` has."""
    return next((name for name, fits in LAYOUTS.items() if fits(config)), None)


def _is_llada(config: Mapping[str, Any]) -> bool:
    names = config.get("architectures")
    named = isinstance(names, list) and "LLaDAModelLM" in names
    return named or config.get("model_type") == "llada"


def _training_root(config: Mapping[str, Any]) -> str | None:
    inner = config.get("config")
    for root, fields in (("config.", inner), ("", config)):
        if isinstance(fields, dict) and isinstance(fields.get("model"), dict):
            return root
    return None


LAYOUTS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "idlm_ds": lambda config: config.get("format") == FORMAT,
    "llada": _is_llada,
    "sedd": lambda config: {"tokens", "graph", "model"} <= config.keys(),
    "sdtt": lambda config: _training_root(config) is not None,
    "hugging_face": lambda config: {"hidden_dim", "n_blocks"} <= config.keys(),
}
"""The first that fits counts."""


def read_folder(folder: Path, layout: str, config: Mapping[str, Any]) -> Found:
    """Open the tensors of a folder and read what its configuration states.

    Raises:
        UnsafeCheckpointError: Reading it the usual way could run code.
        UserError: A file is missing or damaged.
    """
    reader = Reader(str(folder / CONFIG), config)
    kind = "llada" if layout == "llada" else "dit"
    match layout:
        case "idlm_ds":
            card = read_card(folder)
            kind = str(card.network.get("kind"))
            if kind not in PLANS:
                raise UserError(f"{folder}: network.kind must be one of {', '.join(PLANS)}")
            stated = state_own(reader)
        case "llada":
            stated = state_llada(reader)
        case "sedd":
            stated = state_sedd(reader)
        case "sdtt":
            stated = state_training(reader, _training_root(config) or "", default="mdlm")
        case _:
            stated = state_hugging_face(reader)
    return _with_weights(folder, layout, kind, stated)


def _with_weights(folder: Path, layout: str, kind: str, stated: Stated) -> Found:
    tensors, troubles = _open_weights(folder)
    ignored = tuple(name for name in tensors if name.startswith("teacher."))
    files = dict.fromkeys([CONFIG, *([INDEX] if (folder / INDEX).is_file() else [])])
    files |= dict.fromkeys(Path(source.label).name for source in tensors.values())
    return Found(
        path=folder,
        layout=layout,
        kind=kind,
        stated=stated,
        files=tuple(folder / name for name in files),
        tensors={name: source for name, source in tensors.items() if name not in ignored},
        ignored=ignored,
        troubles=troubles,
    )


def _open_weights(folder: Path) -> tuple[dict[str, NamedTensors], list[str]]:
    if (folder / WEIGHTS).is_file():
        whole = FileWeights(folder / WEIGHTS)
        return dict.fromkeys(sorted(whole.names()), whole), []
    if (folder / INDEX).is_file():
        return _open_shards(folder)
    if (folder / TORCH_WEIGHTS).is_file():
        file = TorchFile(folder / TORCH_WEIGHTS)
        pickled = TorchWeights(file, tensors_in(file, file.content, "it"))
        return dict.fromkeys(sorted(pickled.names()), pickled), []
    raise UserError(f"{folder}: no weights there ({WEIGHTS}, {INDEX} or {TORCH_WEIGHTS})")


def _open_shards(folder: Path) -> tuple[dict[str, NamedTensors], list[str]]:
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
        raise UserError(f"{folder / INDEX}: no weight_map of names to files")
    for name in places.values():
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise UnsafeCheckpointError(
                f"{folder / INDEX}: refused: names a file {ascii(name[:80])} that is not beside it"
            )
    absent = sorted({name for name in places.values() if not (folder / name).is_file()})
    if absent:
        raise UserError(f"{folder}: shards are missing: {listed(absent)}")
    shards = {name: FileWeights(folder / name) for name in sorted(set(places.values()))}
    within = {name: shard.names() for name, shard in shards.items()}
    lost = [name for name, shard in places.items() if name not in within[shard]]
    found = {name: shards[shard] for name, shard in places.items() if name in within[shard]}
    return dict(found), [f"in {INDEX} but not in its shard {listed(lost)}"] if lost else []


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
