"""Named tensors in safetensors files."""

import errno
import hashlib
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from idlm_ds.errors import UserError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def fingerprint(*paths: Path) -> str:
    """Short SHA-256 of some files together."""
    together = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            together.update(hashlib.file_digest(file, "sha256").digest())
    return together.hexdigest()[:16]


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, readable for whom the user's umask lets read.

    Nothing is copied: tensors of host memory go to the file from where they are, also when they
    are disjoint parts of one storage. The library alone would make a file for its owner only.

    Raises:
        OSError: The file cannot be written.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        raise OSError(*_cause(int(number.group(1)) if number else None, error)) from error
    path.chmod(mode)


def _cause(number: int | None, error: Exception) -> tuple[int, str]:
    return (errno.EIO, str(error)) if number is None else (number, os.strerror(number))


class LazyTensor(Protocol):
    """A tensor of which any run of elements can be read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype | None:
        """Stored type; None where it is no floating-point type."""

    def read(self, start: int, stop: int) -> Tensor:
        """Elements ``start`` to ``stop`` of the flattened tensor; little more is read."""
        ...


class NamedTensors:
    """Tensors by name; an ``engine.weights.WeightSource``."""

    def __init__(self, label: str, tensors: Mapping[str, LazyTensor]) -> None:
        self.label = label
        self.tensors = dict(tensors)

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self.tensors)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor, or None where there is none of that name."""
        return self.tensors[name].shape if name in self.tensors else None

    def dtype(self, name: str) -> torch.dtype | None:
        """Return the stored type of a tensor; None where it is no floating-point type."""
        return self.tensors[name].dtype

    def read(self, name: str, shape: tuple[int, ...], start: int, stop: int) -> Tensor:
        """Elements ``start`` to ``stop`` of the flattened tensor; little more is read."""
        del shape
        return self.tensors[name].read(start, stop)


@dataclass(frozen=True, slots=True)
class _FileTensor:
    """A tensor of a safetensors file."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None

    def read(self, start: int, stop: int) -> Tensor:
        # A file stays mapped, and all that was read of it in memory, for as long as it is open.
        view = safe_open(self.path, framework="pt").get_slice(self.name)
        width = math.prod(self.shape[1:])
        first, last = start // width, -(-stop // width)
        rows = view[first:last].flatten()
        return rows[start - first * width : stop - first * width]


class FileWeights(NamedTensors):
    """Tensors of one safetensors file; only rows with elements that are asked for are read."""

    def __init__(self, path: Path, *, prefix: str = "") -> None:
        """Open a file; ``prefix`` in front of its names gives those of the network.

        Raises:
            UserError: The file is missing or damaged.
        """
        try:
            file = safe_open(path, framework="pt")
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file") from error
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: not a safetensors file: {error}") from error
        tensors = {}
        for name in sorted(file.keys()):
            view = file.get_slice(name)
            shape, dtype = tuple(view.get_shape()), DTYPES.get(view.get_dtype())
            tensors[prefix + name] = _FileTensor(path, name, shape, dtype)
        super().__init__(str(path), tensors)
