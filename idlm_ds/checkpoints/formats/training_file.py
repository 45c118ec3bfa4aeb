"""What training programs write: weights, a running mean of them, and much else."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from idlm_ds.checkpoints.formats.base import Format
from idlm_ds.checkpoints.formats.content import Content, whole
from idlm_ds.checkpoints.formats.description import RawCheckpoint, RunningMean
from idlm_ds.checkpoints.formats.reader import Stated
from idlm_ds.checkpoints.pickle_reader.allowed import StoredTensor
from idlm_ds.checkpoints.pickle_reader.torch_file import TorchFile, TorchTensor, tensors_in
from idlm_ds.errors import UserError

FIRST_MEAN = {"decay": 0.9999, "num_updates": 0}
"""Where there is no running mean, the programs want one all the same, and start it like this."""


class TrainingFile(Format):
    """A layout of files of ``torch.save``."""

    keys: ClassVar[frozenset[str]]
    """Keys that give it away."""

    weights: ClassVar[str]
    """Key of the weights."""

    prefix: ClassVar[str] = ""
    """What is written in front of the network's names; in reading, ``own_name`` strips it."""

    @abstractmethod
    def state(self, file: TorchFile) -> Stated:
        """Read the configuration in a file."""

    @abstractmethod
    def fields(self, content: Content, shared: Mapping[str, Any]) -> dict[str, Any]:
        """Content of the file, around ``shared``: the weights and their running mean."""

    def ignored(self, names: Iterable[str]) -> list[str]:
        """List stored names that are no part of the network."""
        del names
        return []

    def fits(self, fields: Mapping[str, Any]) -> bool:
        """See base class."""
        return self.keys <= fields.keys()

    def read(self, path: Path, opened: TorchFile) -> RawCheckpoint:
        """See base class."""
        tensors = tensors_in(opened, opened.content[self.weights], self.weights)
        ignored = self.ignored(tensors)
        ema, shadow = _running_mean(opened)
        return RawCheckpoint(
            path=path,
            layout=self.layout.name,
            kind=self.layout.networks[0],
            stated=self.state(opened),
            files=(path,),
            tensors={name: t for name, t in tensors.items() if name not in ignored},
            ignored=tuple(ignored),
            ema=ema,
            shadow=shadow,
        )

    def write(self, path: Path, content: Content, *, max_shard_size: str) -> None:
        """See base class; holds all weights in memory."""
        del max_shard_size
        weights = content.tensors()
        stored = {self.prefix + k: tensor for k, tensor in (weights | content.buffers()).items()}
        shared = {self.weights: stored, "ema": _shadow(content, weights)}
        try:
            with path.open("wb") as file:
                torch.save(self.fields(content, shared), file)
        except RuntimeError as error:
            raise UserError(f"{path}: cannot be written: {error.__context__ or error}") from error


def _running_mean(file: TorchFile) -> tuple[RunningMean | None, list[TorchTensor]]:
    ema = file.content.get("ema")
    shadow = ema.get("shadow_params") if isinstance(ema, dict) else None
    if not isinstance(shadow, list) or not shadow:
        return None, []
    decay, updates = ema.get("decay"), ema.get("num_updates")
    mean = RunningMean(
        decay=decay if isinstance(decay, float) else None,
        updates=updates if isinstance(updates, int) else None,
    )
    return mean, [TorchTensor(file, t) for t in shadow if isinstance(t, StoredTensor)]


def _shadow(content: Content, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    mean, ema = content.mean, content.about.ema
    if mean is None or ema is None:
        # The same memory, so that the file is no larger.
        return {**FIRST_MEAN, "shadow_params": list(weights.values())}
    shadow = [whole(mean, name, content.dtype) for name in weights]
    return {"decay": ema.decay, "num_updates": ema.updates, "shadow_params": shadow}
