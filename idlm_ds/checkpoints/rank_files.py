"""Whole tensors of a training checkpoint, put together from the files of its ranks.

Every rank's file holds runs of elements as ``KIND:NAME``, and in its metadata where each run begins
and what shape the parameter has. Any ZeRO stage and any number of ranks will do.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from idlm_ds.checkpoints.tensors import DTYPES, NamedTensors
from idlm_ds.errors import UserError

RUNNING_MEAN = "ema"

_NAME = re.compile(r"rank-(\d+)\.safetensors")


def rank_file(rank: int) -> str:
    """Name the file that a rank writes for each role."""
    return f"rank-{rank:05d}.safetensors"


def rank_of(name: str) -> int | None:
    """Tell which rank wrote a file, given its path; None for a file of another kind."""
    match = _NAME.fullmatch(Path(name).name)
    return int(match.group(1)) if match else None


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive elements of a flattened parameter in one file."""

    path: Path
    key: str
    dtype: str
    start: int
    stop: int

    def read(self, start: int, stop: int) -> Tensor:
        """Read elements of the parameter that are all in this run."""
        # A file stays mapped, and all that was read of it in memory, for as long as it is open.
        view = safe_open(self.path, framework="pt").get_slice(self.key)
        return view[start - self.start : stop - self.start]


@dataclass(frozen=True, slots=True)
class _SpreadTensor:
    """A tensor whose elements are spread over files."""

    shape: tuple[int, ...]
    runs: list[_Run]

    @property
    def dtype(self) -> torch.dtype | None:
        return DTYPES.get(self.runs[0].dtype)

    def read(self, start: int, stop: int) -> Tensor:
        parts = []
        for run in self.runs:
            first, last = max(start, run.start), min(stop, run.stop)
            if first < last:
                parts.append(run.read(first, last))
        return torch.cat(parts)


class RankFiles(NamedTensors):
    """One kind of tensor of one role; no more of a file is read than is asked for."""

    def __init__(self, folder: Path, kind: str = RUNNING_MEAN) -> None:
        """Open the files of all ranks.

        Args:
            folder: ``step-N/ROLE``.
            kind: What is read: ``ema``, ``weight`` or a moment of the optimizer.

        Raises:
            UserError: There are none, they lack the kind, or an element is in none or in two.
        """
        tensors: dict[str, _SpreadTensor] = {}
        paths = sorted(folder.glob("rank-*.safetensors"))
        if not paths:
            raise UserError(f"{folder}: no rank-*.safetensors there")
        for path in paths:
            try:
                _add_runs(tensors, path, kind)
            except (SafetensorError, KeyError, TypeError, ValueError) as error:
                raise UserError(f"{path}: holds no {kind} of a training run: {error}") from error
        for name, tensor in tensors.items():
            tensor.runs.sort(key=lambda run: run.start)
            ends = [0, *(run.stop for run in tensor.runs)]
            starts = [*(run.start for run in tensor.runs), math.prod(tensor.shape)]
            if starts != ends:
                raise UserError(f"{folder}: {kind} of {name} is not there once and whole")
        super().__init__(str(folder), tensors)


def _add_runs(tensors: dict[str, _SpreadTensor], path: Path, kind: str) -> None:
    file = safe_open(path, framework="pt")
    for name, place in json.loads(file.metadata()["fragments"]).items():
        key, start = f"{kind}:{name}", place["start"]
        view, shape = file.get_slice(key), tuple(place["shape"])
        tensor = tensors.setdefault(name, _SpreadTensor(shape, []))
        if tensor.shape != shape:
            raise ValueError(f"{name} has another shape elsewhere")
        stop = start + view.get_shape()[0]
        tensor.runs.append(_Run(path, key, view.get_dtype(), start, stop))
