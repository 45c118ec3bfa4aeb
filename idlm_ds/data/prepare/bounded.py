"""Bytes out of files, packed or not, without ever holding more than was agreed."""

import gzip
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa

CHUNK = 1 << 20
XZ_MEMORY = 256 << 20
"""Largest dictionary an xz file may ask for."""

PACKED = (".gz", ".zst", ".xz")

BOMB = 64
"""A line this many times too long is no text but what a packed file blew up to."""


class DamagedError(Exception):
    """The rest of a file cannot be read; the message is the reason it is counted under."""


class TooLong:
    """Stands for a line that was longer than agreed."""


def chunks(path: Path, moved: Callable[[int], None]) -> Iterator[bytes]:
    """Read a file, unpacking it if its name says so.

    Args:
        path: The file.
        moved: Told the position in the file after each chunk.

    Raises:
        DamagedError: It is packed and is cut short or damaged.
        OSError: It cannot be read at all.
    """
    unpack = {".gz": _gz, ".zst": _zst, ".xz": _xz}.get(path.suffix, _plain)
    with path.open("rb") as file:
        try:
            for chunk in unpack(file):
                moved(file.tell())
                yield chunk
        except EOFError as error:
            raise DamagedError("cut short") from error
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
            raise DamagedError("damaged") from error


def _plain(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _gz(file: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as unpacked:
        yield from _plain(unpacked)


def _zst(file: IO[bytes]) -> Iterator[bytes]:
    try:
        with pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as unpacked:
            while chunk := unpacked.read(CHUNK):
                yield chunk
    except OSError as error:
        raise DamagedError("cut short" if "Truncated" in str(error) else "damaged") from error


def _xz(file: IO[bytes]) -> Iterator[bytes]:
    packed = b""
    while packed := packed or file.read(CHUNK):
        stream = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
        while not stream.eof:
            if stream.needs_input and not packed and not (packed := file.read(CHUNK)):
                raise EOFError
            if chunk := stream.decompress(packed, CHUNK):
                yield chunk
            packed = b""
        packed = stream.unused_data.lstrip(b"\0")


def lines(pieces: Iterable[bytes], longest: int) -> Iterator[bytes | TooLong]:
    """Cut a stream at newlines, which are left out.

    Args:
        pieces: The stream, in pieces of any size.
        longest: Most bytes of a line.

    Raises:
        DamagedError: A line does not end within many times that.
    """
    line, length = bytearray(), 0
    for piece in pieces:
        *ends, rest = piece.split(b"\n")
        for end in ends:
            yield TooLong() if length + len(end) > longest else bytes(line) + end
            line, length = bytearray(), 0
        length += len(rest)
        if length <= longest:
            line += rest
        elif length > BOMB * longest:
            raise DamagedError("one endless line")
    if length:
        yield TooLong() if length > longest else bytes(line)
