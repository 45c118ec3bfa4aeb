"""Whole tensors of a training checkpoint, put together from the files of its ranks.

Every rank's file holds runs of elements as ``KIND:NAME``, and in its metadata where each run begins
and what shape the parameter has. Any ZeRO stage and any number of ranks will do.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from idlm_ds.checkpoints.tensors import DTYPES
from idlm_ds.errors import UserError

RUNNING_MEAN = "ema"


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive elements of a flattened parameter in one file."""

    file: Any
    start: int
    stop: int


class RankFiles:
    """One kind of tensor of one role; see ``NamedTensors``."""

    def __init__(self, folder: Path, kind: str = RUNNING_MEAN) -> None:
        """Open the files of all ranks.

        Args:
            folder: ``step-N/ROLE``.
            kind: What is read: ``ema``, ``weight`` or a moment of the optimizer.

        Raises:
            UserError: There are none, they lack the kind, or an element is in none or in two.
        """
        self.label = str(folder)
        self._kind = kind
        self._runs: dict[str, list[_Run]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        paths = sorted(folder.glob("rank-*.safetensors"))
        if not paths:
            raise UserError(f"{folder}: no rank-*.safetensors there")
        for path in paths:
            try:
                self._add(safe_open(path, framework="pt"))
            except (SafetensorError, KeyError, TypeError, ValueError) as error:
                raise UserError(f"{path}: holds no {kind} of a training run: {error}") from error
        for name, runs in self._runs.items():
            runs.sort(key=lambda run: run.start)
            ends = [0, *(run.stop for run in runs)]
            starts = [*(run.start for run in runs), math.prod(self._shapes[name])]
            if starts != ends:
                raise UserError(f"{folder}: {kind} of {name} is not there once and whole")

    def _add(self, file: Any) -> None:
        for name, place in json.loads(file.metadata()["fragments"]).items():
            count = file.get_slice(f"{self._kind}:{name}").get_shape()[0]
            shape = self._shapes.setdefault(name, tuple(place["shape"]))
            if shape != tuple(place["shape"]):
                raise ValueError(f"{name} has another shape elsewhere")
            run = _Run(file, place["start"], place["start"] + count)
            self._runs.setdefault(name, []).append(run)

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._runs)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor, or None where there is none of that name."""
        return self._shapes.get(name)

    def dtype(self, name: str) -> torch.dtype | None:
        """Stored type of a tensor; None where it is no floating-point type."""
        view = self._runs[name][0].file.get_slice(f"{self._kind}:{name}")
        return DTYPES.get(view.get_dtype())

    def read(self, name: str, shape: tuple[int, ...], start: int, stop: int) -> Tensor:
        """Elements ``start`` to ``stop`` of the flattened tensor; nothing more is read."""
        del shape
        parts = []
        for run in self._runs[name]:
            first, last = max(start, run.start), min(stop, run.stop)
            if first < last:
                view = run.file.get_slice(f"{self._kind}:{name}")
                parts.append(view[first - run.start : last - run.start])
        return torch.cat(parts)
