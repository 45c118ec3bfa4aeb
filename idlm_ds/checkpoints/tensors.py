"""Named tensors in safetensors files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
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


class NamedTensors(Protocol):
    """Tensors of which any run of elements can be read."""

    label: str
    """What to call them in messages."""

    def names(self) -> set[str]:
        """Names of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor, or None where there is none of that name."""
        ...

    def dtype(self, name: str) -> torch.dtype | None:
        """Stored type of a tensor; None where it is no floating-point type."""
        ...

    def read(self, name: str, shape: tuple[int, ...], start: int, stop: int) -> Tensor:
        """Elements ``start`` to ``stop`` of the flattened tensor; little more is read."""
        ...


class FileWeights:
    """Tensors of one ``model.safetensors``, read a slice at a time."""

    def __init__(self, path: Path, *, prefix: str = "") -> None:
        """Open a file.

        Args:
            path: The safetensors file.
            prefix: Put in front of the file's names to give those of the network.

        Raises:
            UserError: The file is missing or damaged.
        """
        self.label = str(path)
        self._prefix = prefix
        try:
            self._file = safe_open(path, framework="pt")
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file") from error
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: not a safetensors file: {error}") from error
        self._names = set(self._file.keys())

    def names(self) -> set[str]:
        """Names of all tensors, as the network has them."""
        return {self._prefix + name for name in self._names}

    def dtype(self, name: str) -> torch.dtype | None:
        """Stored type of a tensor; None where it is no floating-point type."""
        view = self._file.get_slice(name.removeprefix(self._prefix))
        return DTYPES.get(view.get_dtype())

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor, or None where the file has none of that name."""
        name = name.removeprefix(self._prefix)
        if name not in self._names:
            return None
        return tuple(self._file.get_slice(name).get_shape())

    def read(self, name: str, shape: tuple[int, ...], start: int, stop: int) -> Tensor:
        """Elements ``start`` to ``stop`` of the flattened tensor; only their rows are read."""
        # A file stays mapped, and all that was read of it in memory, for as long as it is open.
        view = safe_open(self.label, framework="pt").get_slice(name.removeprefix(self._prefix))
        width = 1
        for size in shape[1:]:
            width *= size
        first, last = start // width, -(-stop // width)
        rows = view[first:last].flatten()
        return rows[start - first * width : stop - first * width]


class Renamed:
    """Tensors of one or more files under the names of a network."""

    def __init__(self, label: str, places: Mapping[str, tuple[NamedTensors, str]]) -> None:
        """Choose tensors.

        Args:
            label: What to call them in messages.
            places: For each name of the network, where its tensor is and what it is called there.
        """
        self.label = label
        self._places = dict(places)

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._places)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor, or None where there is none of that name."""
        if name not in self._places:
            return None
        source, stored = self._places[name]
        return source.shape(stored)

    def dtype(self, name: str) -> torch.dtype | None:
        """Stored type of a tensor; None where it is no floating-point type."""
        source, stored = self._places[name]
        return source.dtype(stored)

    def read(self, name: str, shape: tuple[int, ...], start: int, stop: int) -> Tensor:
        """Elements ``start`` to ``stop`` of the flattened tensor."""
        source, stored = self._places[name]
        return source.read(stored, shape, start, stop)
