"""Folders with a ``config.json`` and weights beside it, as Hugging Face has them."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from idlm_ds.checkpoints.formats.base import Format
from idlm_ds.checkpoints.formats.content import Content
from idlm_ds.checkpoints.formats.description import Description, RawCheckpoint
from idlm_ds.checkpoints.formats.reader import Reader, Stated
from idlm_ds.checkpoints.model_folder import CONFIG, write_network
from idlm_ds.checkpoints.pickle_reader.torch_file import TorchFile, tensors_in
from idlm_ds.checkpoints.weight_files import (
    INDEX,
    WEIGHTS,
    Opened,
    Stream,
    has_weights,
    open_weights,
)
from idlm_ds.errors import UserError

TORCH_WEIGHTS = "pytorch_model.bin"


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
        weights = _open_weights(path)
        tensors = weights.tensors
        ignored = tuple(name for name in tensors if name.startswith("teacher."))
        index = [INDEX] if (path / INDEX).is_file() else []
        return RawCheckpoint(
            path=path,
            layout=self.layout.name,
            kind=self.kind(opened),
            stated=stated,
            files=tuple(path / name for name in (CONFIG, *index, *weights.files)),
            tensors={name: tensor for name, tensor in tensors.items() if name not in ignored},
            ignored=ignored,
            problems=list(weights.problems),
        )

    def write(self, path: Path, content: Content, *, max_shard_size: str) -> None:
        """See base class; holds one shard in memory."""
        weights = Stream(
            {self.prefix + name: tensor for name, tensor in content.empty()},
            lambda name: content.tensor(name.removeprefix(self.prefix)),
        )
        fields = self.config(content.about) | _torch_dtype(content)
        write_network(path, fields, weights, max_shard_size=max_shard_size)


def _torch_dtype(content: Content) -> dict[str, str]:
    dtype = content.about.dtype if content.dtype is None else str(content.dtype)
    return {} if "," in dtype else {"torch_dtype": dtype.removeprefix("torch.")}


def _open_weights(folder: Path) -> Opened:
    """Open the weights of a folder, in safetensors files or else in a pickle."""
    if has_weights(folder):
        return open_weights(folder)
    if (folder / TORCH_WEIGHTS).is_file():
        file = TorchFile(folder / TORCH_WEIGHTS)
        tensors = dict(sorted(tensors_in(file, file.content, "it").items()))
        return Opened(tensors, [TORCH_WEIGHTS])
    raise UserError(f"{folder}: no weights there ({WEIGHTS}, {INDEX} or {TORCH_WEIGHTS})")
