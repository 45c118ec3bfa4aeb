"""Read plain and compressed files in bounded memory."""

import gzip
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

CHUNK = 1 << 20
"""Bytes read at a time."""

XZ_MEMORY = 256 << 20
"""Memory limit of the xz decompressor, in bytes; files with larger dictionaries are refused."""

COMPRESSED = (".gz", ".zst", ".xz")
"""Suffixes of compressed files."""

BOMB_FACTOR = 64
"""A line longer than this many times the limit is taken for a decompression bomb."""


class DamagedError(Exception):
    """The rest of a file cannot be read; the message is the reason it is counted under."""


class TooLong:
    """Placeholder for a line above the length limit."""


def chunks(path: Path, on_position: Callable[[int], None]) -> Iterator[bytes]:
    """Read a file in chunks, decompressing it by its suffix.

    ``on_position`` is called with the position in the (compressed) file after each chunk.

    Raises:
        DamagedError: The file is compressed and is truncated or damaged.
        OSError: The file cannot be opened or read.
    """
    decompress = {".gz": _gz, ".zst": _zst, ".xz": _xz}.get(path.suffix, _plain)
    with path.open("rb") as file:
        try:
            for chunk in decompress(file):
                on_position(file.tell())
                yield chunk
        except EOFError as error:
            raise DamagedError("cut short") from error
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
            raise DamagedError("damaged") from error


def _plain(file: Any) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _gz(file: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as decompressed:
        yield from _plain(decompressed)


def _zst(file: IO[bytes]) -> Iterator[bytes]:
    try:
        with pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as decompressed:
            yield from _plain(decompressed)
    except OSError as error:
        raise DamagedError("cut short" if "Truncated" in str(error) else "damaged") from error


def _xz(file: IO[bytes]) -> Iterator[bytes]:
    compressed = b""
    # A file may hold several xz streams one after the other.
    while compressed := compressed or file.read(CHUNK):
        stream = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
        while not stream.eof:
            if stream.needs_input and not compressed and not (compressed := file.read(CHUNK)):
                raise EOFError
            if chunk := stream.decompress(compressed, CHUNK):
                yield chunk
            compressed = b""
        # Zero bytes between streams are padding of the xz format.
        compressed = stream.unused_data.lstrip(b"\0")


def lines(pieces: Iterable[bytes], longest: int) -> Iterator[bytes | TooLong]:
    """Split a byte stream, in pieces of any size, into lines without their newlines.

    Lines of more than ``longest`` bytes are skipped without being held.

    Raises:
        DamagedError: A line is longer than ``BOMB_FACTOR`` times the limit.
    """
    line, length = bytearray(), 0
    for piece in pieces:
        *ends, rest = piece.split(b"\n")
        for end in ends:
            yield TooLong() if length + len(end) > longest else bytes(line) + end
            line, length = bytearray(), 0
        # The unfinished line at the end of the piece.
        length += len(rest)
        if length <= longest:
            line += rest
        elif length > BOMB_FACTOR * longest:
            raise DamagedError("one endless line")
    if length:
        yield TooLong() if length > longest else bytes(line)
