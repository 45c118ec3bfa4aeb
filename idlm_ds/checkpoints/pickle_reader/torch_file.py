"""Files of ``torch.save``, read a slice at a time; nothing in them is executed."""

import os
import re
import struct
import weakref
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idlm_ds.checkpoints.pickle_reader.allowed import Refused, StoredTensor
from idlm_ds.checkpoints.pickle_reader.unpickle import unpickle
from idlm_ds.errors import UnsafeCheckpointError, UserError

MAGIC = b"PK\x03\x04"
BARE_PICKLE = re.compile(rb"\x80[\x00-\x05]|c[\w.]+\n[\w.]+\n|\([dlciS(]")
LOCAL_HEADER = struct.Struct("<4s22xHH")
MAX_PICKLE = 64 * 2**20
DAMAGE = (OSError, ValueError, OverflowError, NotImplementedError, zipfile.BadZipFile, struct.error)


class TorchFile:
    """An open file of ``torch.save``, in the zip format that is the default since PyTorch 1.6."""

    content: Any
    """Containers, numbers, text, ``StoredTensor`` and ``Inert``, as the pickle nests them."""

    def __init__(self, path: Path) -> None:
        """Open a file and read all but the numbers in its tensors.

        Raises:
            UnsafeCheckpointError: Reading it the usual way could run code.
            UserError: It is missing, damaged or no file of this kind.
        """
        self.label = str(path)
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"{path}: not readable: {error.strerror}") from error
        weakref.finalize(self, os.close, self._handle)
        self._check_magic()
        try:
            self._entries = _list_entries(self._handle)
            self._root = _find_root(self._entries)
            self.content = self._read_content()
        except Refused as error:
            raise UnsafeCheckpointError(
                f"{path}: refused, nothing in it was executed: {error}"
            ) from error
        except DAMAGE as error:
            raise UserError(f"{path}: damaged or not a PyTorch file: {error}") from error

    def read(self, tensor: StoredTensor, start: int, stop: int) -> Tensor:
        """Elements ``start`` to ``stop`` of a flattened tensor; only they are read.

        Raises:
            UserError: The file is damaged.
        """
        if _is_contiguous(tensor):
            return self._numbers(tensor, tensor.offset + start, stop - start)
        steps = zip(tensor.shape, tensor.strides, strict=True)
        extent = 1 + sum((size - 1) * step for size, step in steps)
        whole = self._numbers(tensor, tensor.offset, extent)
        return whole.as_strided(tensor.shape, tensor.strides).flatten()[start:stop]

    def _check_magic(self) -> None:
        head = os.pread(self._handle, 4096, 0)
        if head.startswith(MAGIC):
            return
        if not head:
            raise UserError(f"{self.label}: empty file")
        if BARE_PICKLE.match(head):
            raise UnsafeCheckpointError(
                f"{self.label}: a bare pickle, as PyTorch wrote before 1.6, is refused unread; "
                "where you trust it, load it with PyTorch (weights_only=True) and save it again"
            )
        raise UserError(f"{self.label}: not a PyTorch file: it does not start as a zip archive")

    def _read_content(self) -> Any:
        order = self._entries.get(f"{self._root}byteorder")
        if order and self._bytes(order, 0, min(order.file_size, 16)) != b"little":
            raise ValueError("its numbers are not little-endian")
        stream = self._entries[f"{self._root}data.pkl"]
        if stream.file_size > MAX_PICKLE:
            raise ValueError(f"its pickle has more than {MAX_PICKLE} bytes")
        content = bytes(self._bytes(stream, 0, stream.file_size))
        if zlib.crc32(content) != stream.CRC:
            raise ValueError("its pickle does not match its checksum")
        return unpickle(content)

    def _numbers(self, tensor: StoredTensor, first: int, count: int) -> Tensor:
        storage = tensor.storage
        if count == 0:
            return torch.empty(0, dtype=storage.dtype)
        width = storage.dtype.itemsize
        entry = self._entries.get(f"{self._root}data/{storage.key}")
        if entry is None or entry.file_size != width * storage.numel:
            raise UserError(f"{self.label}: damaged: entry data/{storage.key} is missing or cut")
        try:
            content = self._bytes(entry, width * first, width * count)
        except DAMAGE as error:
            raise UserError(f"{self.label}: damaged: {error}") from error
        return torch.frombuffer(content, dtype=storage.dtype)

    def _bytes(self, entry: zipfile.ZipInfo, start: int, count: int) -> bytearray:
        header = os.pread(self._handle, LOCAL_HEADER.size, entry.header_offset)
        magic, name, extra = LOCAL_HEADER.unpack(header.ljust(LOCAL_HEADER.size, b"\0"))
        if magic != MAGIC:
            raise ValueError(f"{ascii(entry.filename)} is not where the table says")
        offset = entry.header_offset + LOCAL_HEADER.size + name + extra + start
        return _read_exactly(self._handle, offset, count)


@dataclass(frozen=True, slots=True)
class TorchTensor:
    """A tensor of a ``TorchFile``; only elements that are asked for are read."""

    file: TorchFile
    stored: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""
        return self.stored.shape

    @property
    def dtype(self) -> torch.dtype:
        """Stored type."""
        return self.stored.storage.dtype

    def read(self, start: int, stop: int) -> Tensor:
        """Elements ``start`` to ``stop`` of the flattened tensor."""
        return self.file.read(self.stored, start, stop)


def tensors_in(file: TorchFile, content: Any, what: str) -> dict[str, TorchTensor]:
    """Return a dictionary of tensors by name.

    Raises:
        UserError: It holds something else.
    """
    if not isinstance(content, dict):
        raise UserError(f"{file.label}: {what} is no dictionary of tensors")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, StoredTensor):
            raise UserError(f"{file.label}: {what} holds something that is no tensor with a name")
    return {name: TorchTensor(file, tensor) for name, tensor in content.items()}


def _list_entries(handle: int) -> dict[str, zipfile.ZipInfo]:
    with open(handle, "rb", closefd=False) as stream, zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
    names = Counter(entry.orig_filename for entry in entries)
    for entry in entries:
        name = entry.orig_filename
        if names[name] > 1:
            raise Refused(f"two entries are called {ascii(name[:80])}")
        if name.startswith("/") or {"..", ""} & set(name.split("/")) or set("\\\0") & set(name):
            raise Refused(f"an entry is called {ascii(name[:80])}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ValueError(
                f"{ascii(name[:80])} is compressed; PyTorch stores entries as they are"
            )
    return {entry.orig_filename: entry for entry in entries}


def _find_root(entries: Mapping[str, zipfile.ZipInfo]) -> str:
    """Folder inside the archive that holds everything."""
    roots = [n.removesuffix("data.pkl") for n in entries if n.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError(f"a zip archive with {len(roots)} entries called data.pkl")
    return roots[0]


def _is_contiguous(tensor: StoredTensor) -> bool:
    expected = 1
    for size, step in reversed(list(zip(tensor.shape, tensor.strides, strict=True))):
        if size != 1 and step != expected:
            return 0 in tensor.shape
        expected *= size
    return True


def _read_exactly(handle: int, offset: int, count: int) -> bytearray:
    if offset + count > os.fstat(handle).st_size:
        raise ValueError("cut short")
    content = bytearray(count)
    view, done = memoryview(content), 0
    while done < count:
        count_read = os.preadv(handle, [view[done:]], offset + done)
        if count_read == 0:
            raise ValueError("cut short")
        done += count_read
    return content
