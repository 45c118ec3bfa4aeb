"""Named tensors in a safetensors file."""

import hashlib
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from idlm_ds.errors import UserError


def fingerprint(*paths: Path) -> str:
    """Short SHA-256 of some files together."""
    together = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            together.update(hashlib.file_digest(file, "sha256").digest())
    return together.hexdigest()[:16]


class FileWeights:
    """Tensors of one ``model.safetensors``, read a slice at a time."""

    def __init__(self, path: Path, *, prefix: str = "") -> None:
        """Open a file.

        Args:
            path: The safetensors file.
            prefix: What the network's parameter names carry in front of the file's.

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

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor, or None where the file has none of that name."""
        name = name.removeprefix(self._prefix)
        if name not in self._names:
            return None
        return tuple(self._file.get_slice(name).get_shape())

    def read(self, name: str, shape: tuple[int, ...], start: int, stop: int) -> Tensor:
        """Elements ``start`` to ``stop`` of the flattened tensor; only their rows are read."""
        view = self._file.get_slice(name.removeprefix(self._prefix))
        width = 1
        for size in shape[1:]:
            width *= size
        first, last = start // width, -(-stop // width)
        rows = view[first:last].flatten()
        return rows[start - first * width : stop - first * width]
