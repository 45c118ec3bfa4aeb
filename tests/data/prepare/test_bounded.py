import gzip
import lzma
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idlm_ds.data.prepare.bounded import CHUNK, DamagedError, TooLong, chunks, lines
from tests.data.toy import cases

TEXT = b"some text\n" * 50_000


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


PACK = {".gz": gzip.compress, ".zst": zstd, ".xz": lzma.compress, "": bytes}


def write(folder: Path, suffix: str, content: bytes) -> Path:
    path = folder / f"text.txt{suffix}"
    path.write_bytes(content)
    return path


def read(path: Path) -> bytes:
    return b"".join(chunks(path, lambda _: None))


@pytest.mark.parametrize("suffix", PACK)
def test_a_packed_file_reads_like_a_plain_one(tmp_path, suffix):
    assert read(write(tmp_path, suffix, PACK[suffix](TEXT))) == TEXT


@pytest.mark.parametrize("suffix", PACK)
def test_two_packed_files_in_one_read_as_both(tmp_path, suffix):
    assert (
        read(write(tmp_path, suffix, PACK[suffix](TEXT) + PACK[suffix](b"more"))) == TEXT + b"more"
    )


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz"])
def test_what_comes_before_a_cut_is_read_and_the_cut_is_named(tmp_path, suffix):
    whole = PACK[suffix](bytes(range(256)) * 40_000)
    got = []
    with pytest.raises(DamagedError, match="^cut short$"):
        got.extend(chunks(write(tmp_path, suffix, whole[:-30]), lambda _: None))
    assert len(got) > 3


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz"])
def test_what_is_no_packed_file_is_damaged(tmp_path, suffix):
    with pytest.raises(DamagedError):
        read(write(tmp_path, suffix, b"this is no packed file at all, whatever its name says"))


def test_the_position_in_the_file_is_told(tmp_path):
    path, seen = write(tmp_path, "", b"x" * (3 * CHUNK)), []
    for _ in chunks(path, seen.append):
        pass
    assert seen == [CHUNK, 2 * CHUNK, 3 * CHUNK]


@cases(300)
@given(content=st.binary(max_size=60).map(lambda b: b.replace(b"\x00", b"\n")), data=st.data())
def test_lines_do_not_depend_on_the_pieces_they_come_in(content, data):
    longest = data.draw(st.integers(1, 12))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
    edges = [0, *cuts, len(content)]
    pieces = [content[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    expected = content.split(b"\n")
    if not expected[-1]:
        expected.pop()
    got = list(lines(pieces, longest))
    assert [None if isinstance(line, TooLong) else line for line in got] == [
        line if len(line) <= longest else None for line in expected
    ]


def test_a_line_too_long_is_skipped_without_being_held():
    def pieces():
        yield b"first\n"
        for _ in range(40):
            yield b"x" * CHUNK
        yield b"\nlast"

    tracemalloc.start()
    got = list(lines(pieces(), CHUNK))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got[0] == b"first"
    assert isinstance(got[1], TooLong)
    assert got[2] == b"last"
    assert peak < 8 * CHUNK


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz"])
def test_a_file_that_blows_up_is_left_early(tmp_path, suffix):
    path = write(tmp_path, suffix, PACK[suffix](bytes(100 * CHUNK)))
    assert path.stat().st_size < CHUNK
    tracemalloc.start()
    with pytest.raises(DamagedError, match="^one endless line$"):
        list(lines(chunks(path, lambda _: None), CHUNK))
    # An xz file is unpacked with a dictionary of eight chunks.
    assert tracemalloc.get_traced_memory()[1] < 16 * CHUNK
    tracemalloc.stop()
