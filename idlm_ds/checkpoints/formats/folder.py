"""Folders with a ``config.json`` and weights beside it, as Hugging Face has them."""

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub import split_torch_state_dict_into_shards

from idlm_ds.checkpoints.formats.base import Format
from idlm_ds.checkpoints.formats.content import Content
from idlm_ds.checkpoints.formats.description import Description, RawCheckpoint
from idlm_ds.checkpoints.formats.plans import listed
from idlm_ds.checkpoints.formats.reader import Reader, Stated
from idlm_ds.checkpoints.model_folder import CONFIG, WEIGHTS, read_json
from idlm_ds.checkpoints.pickle_reader.torch_file import TorchFile, tensors_in
from idlm_ds.checkpoints.tensors import FileWeights, LazyTensor, save_tensors
from idlm_ds.errors import UnsafeCheckpointError, UserError

INDEX, TORCH_WEIGHTS = "model.safetensors.index.json", "pytorch_model.bin"


class FolderFormat(Format):
    """A layout of folders: what its ``config.json`` states, and how names begin."""

    has_shards = True

    prefix: ClassVar[str] = ""
    """What is written in front of the network's names; in reading, ``own_name`` strips it."""

    @abstractmethod
    def state(self, config: Reader) -> Stated:
        """Read ``config.json``.

        Raises:
            UserError: It describes a model that cannot be read.
        """

    @abstractmethod
    def config(self, about: Description) -> dict[str, Any]:
        """Fields of ``config.json``."""

    def kind(self, fields: Mapping[str, Any]) -> str:
        """Architecture of the network."""
        del fields
        return self.layout.networks[0]

    def read(self, path: Path, opened: Mapping[str, Any]) -> RawCheckpoint:
        """See base class."""
        stated = self.state(Reader(str(path / CONFIG), opened))
        tensors, weight_files, problems = _open_weights(path)
        ignored = tuple(name for name in tensors if name.startswith("teacher."))
        index = [INDEX] if (path / INDEX).is_file() else []
        return RawCheckpoint(
            path=path,
            layout=self.layout.name,
            kind=self.kind(opened),
            stated=stated,
            files=tuple(path / name for name in (CONFIG, *index, *weight_files)),
            tensors={name: tensor for name, tensor in tensors.items() if name not in ignored},
            ignored=ignored,
            problems=problems,
        )

    def write(self, path: Path, content: Content, *, max_shard_size: str) -> None:
        """See base class; holds one shard in memory."""
        empty = {self.prefix + name: tensor for name, tensor in content.empty()}
        try:
            split = split_torch_state_dict_into_shards(empty, max_shard_size=max_shard_size)
        except ValueError as error:
            raise UserError(f"--max-shard-size: {max_shard_size!r} is no size like 5GB") from error
        path.mkdir()
        for file, names in split.filename_to_tensors.items():
            shard = {name: content.tensor(name.removeprefix(self.prefix)) for name in names}
            save_tensors(path / file, shard, {"format": "pt"})
            del shard
        if split.is_sharded:
            index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
            (path / INDEX).write_text(json.dumps(index, indent=2) + "\n")
        fields = self.config(content.about) | _torch_dtype(content)
        (path / CONFIG).write_text(json.dumps(fields, indent=2) + "\n")


def _torch_dtype(content: Content) -> dict[str, str]:
    dtype = content.about.dtype if content.dtype is None else str(content.dtype)
    return {} if "," in dtype else {"torch_dtype": dtype.removeprefix("torch.")}


def _open_weights(folder: Path) -> tuple[Mapping[str, LazyTensor], list[str], list[str]]:
    """Tensors by stored name, the files they are in, and what is wrong with them."""
    if (folder / WEIGHTS).is_file():
        return FileWeights(folder / WEIGHTS).tensors, [WEIGHTS], []
    if (folder / INDEX).is_file():
        return _open_shards(folder)
    if (folder / TORCH_WEIGHTS).is_file():
        file = TorchFile(folder / TORCH_WEIGHTS)
        return dict(sorted(tensors_in(file, file.content, "it").items())), [TORCH_WEIGHTS], []
    raise UserError(f"{folder}: no weights there ({WEIGHTS}, {INDEX} or {TORCH_WEIGHTS})")


def _open_shards(folder: Path) -> tuple[Mapping[str, LazyTensor], list[str], list[str]]:
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
    return tensors, files, [f"in {INDEX} but not in its shard {listed(lost)}"] if lost else []
