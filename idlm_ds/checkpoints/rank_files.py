"""Whole tensors of a training checkpoint, put together from the files of its ranks.

Every rank's file holds runs of elements as ``KIND:NAME``, and in its metadata where each run begins
and what shape the parameter has. Any ZeRO stage and any number of ranks will do.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    view: Any
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _SpreadTensor:
    """A tensor whose elements are spread over files."""

    shape: tuple[int, ...]
    runs: list[_Run]

    @property
    def dtype(self) -> torch.dtype | None:
        return DTYPES.get(self.runs[0].view.get_dtype())

    def read(self, start: int, stop: int) -> Tensor:
        parts = []
        for run in self.runs:
            first, last = max(start, run.start), min(stop, run.stop)
            if first < last:
                parts.append(run.view[first - run.start : last - run.start])
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
                _add_runs(tensors, safe_open(path, framework="pt"), kind)
            except (SafetensorError, KeyError, TypeError, ValueError) as error:
                raise UserError(f"{path}: holds no {kind} of a training run: {error}") from error
        for name, tensor in tensors.items():
            tensor.runs.sort(key=lambda run: run.start)
            ends = [0, *(run.stop for run in tensor.runs)]
            starts = [*(run.start for run in tensor.runs), math.prod(tensor.shape)]
            if starts != ends:
                raise UserError(f"{folder}: {kind} of {name} is not there once and whole")
        super().__init__(str(folder), tensors)


def _add_runs(tensors: dict[str, _SpreadTensor], file: Any, kind: str) -> None:
    for name, place in json.loads(file.metadata()["fragments"]).items():
        view = file.get_slice(f"{kind}:{name}")
        shape, stop = tuple(place["shape"]), place["start"] + view.get_shape()[0]
        tensor = tensors.setdefault(name, _SpreadTensor(shape, []))
        if tensor.shape != shape:
            raise ValueError(f"{name} has another shape elsewhere")
        tensor.runs.append(_Run(view, place["start"], stop))
