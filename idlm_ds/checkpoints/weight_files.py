"""Weights of a model folder: one safetensors file, or shards with an index, as transformers has it.

Writing holds one shard in memory, whatever the tensors come from.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from torch import Tensor

from idlm_ds.checkpoints.formats.plans import listed
from idlm_ds.checkpoints.json_files import read_json
from idlm_ds.checkpoints.tensors import FileWeights, LazyTensor, NamedTensors, save_tensors
from idlm_ds.errors import UnsafeCheckpointError, UserError
from idlm_ds.files import write_atomic

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_SIZE = "5GB"
"""Largest size of a file, as transformers has it by default."""

_WRITTEN = re.compile(r"\.?model(-\d{5}-of-\d{5})?\.safetensors")


@dataclass(frozen=True, slots=True)
class Stream:
    """Tensors that are read one at a time, when they are written."""

    empty: Mapping[str, Tensor]
    """Names, types and shapes, as tensors that take no memory."""

    read: Callable[[str], Tensor]
    """Returns a tensor of that type and shape, in host memory."""

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "Stream":
        """Take tensors from where they are."""
        empty = {name: torch.empty_like(t, device="meta") for name, t in weights.items()}
        return cls(empty, lambda name: weights[name].detach().cpu().contiguous())


def has_weights(folder: Path) -> bool:
    """Tell whether a model folder has weights in safetensors files, whole or in shards."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


@dataclass(frozen=True, slots=True)
class Opened:
    """The weights of a folder, of which nothing is read yet."""

    tensors: Mapping[str, LazyTensor]
    """By stored name."""

    files: Sequence[str]
    problems: Sequence[str] = ()
    """What is wrong with them."""


def open_weights(folder: Path) -> Opened:
    """Open the weights of a folder that has some.

    Raises:
        UnsafeCheckpointError: The index names a file elsewhere.
        UserError: A file is missing or damaged.
    """
    if (folder / WEIGHTS).is_file():
        return Opened(FileWeights(folder / WEIGHTS).tensors, [WEIGHTS])
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
    files = list(dict.fromkeys(places.values()))
    stored = {file: FileWeights(folder / file).tensors for file in sorted(files)}
    lost = [name for name, file in places.items() if name not in stored[file]]
    tensors = {name: stored[file][name] for name, file in places.items() if name in stored[file]}
    problems = [f"in {INDEX} but not in its shard {listed(lost)}"] if lost else []
    return Opened(tensors, files, problems)


def folder_weights(folder: Path, *, prefix: str = "") -> NamedTensors:
    """Open the weights of a folder; ``prefix`` in front of their names gives those of the network.

    Raises:
        UnsafeCheckpointError: The index names a file elsewhere.
        UserError: There are none, or one is missing or damaged.
    """
    if not has_weights(folder):
        raise UserError(f"{folder}: no weights there ({WEIGHTS} or {INDEX})")
    opened = open_weights(folder)
    if opened.problems:
        raise UserError(f"{folder}: {opened.problems[0]}")
    tensors = {prefix + name: tensor for name, tensor in opened.tensors.items()}
    return NamedTensors(str(folder), tensors)


@contextmanager
def weights_written(
    folder: Path, weights: Stream, *, max_shard_size: str = SHARD_SIZE
) -> Iterator[None]:
    """Write weights under other names; they take their own when the block ends without an error.

    Weights that were there before go then. A reader sees the old ones, the new ones or none.

    Raises:
        UserError: ``max_shard_size`` is no size.
        OSError: The folder cannot be written.
    """
    try:
        split = split_torch_state_dict_into_shards(
            dict(weights.empty), max_shard_size=max_shard_size
        )
    except ValueError as error:
        raise UserError(f"--max-shard-size: {max_shard_size!r} is no size like 5GB") from error
    hidden = {file: folder / f".{file}" for file in split.filename_to_tensors}
    try:
        for file, names in split.filename_to_tensors.items():
            save_tensors(hidden[file], {n: weights.read(n) for n in names}, {"format": "pt"})
        yield
        (folder / INDEX).unlink(missing_ok=True)
        for file, path in hidden.items():
            os.replace(path, folder / file)
    finally:
        for path in hidden.values():
            path.unlink(missing_ok=True)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_atomic(folder / INDEX, (json.dumps(index, indent=2) + "\n").encode())
    for path in folder.iterdir():
        if _WRITTEN.fullmatch(path.name) and path.name not in hidden:
            path.unlink()
