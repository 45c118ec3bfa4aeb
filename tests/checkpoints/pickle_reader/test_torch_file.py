"""Tensors come out of ``torch.save`` as they went in; damage is one line."""

import io
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from idlm_ds.checkpoints.pickle_reader.allowed import StoredTensor
from idlm_ds.checkpoints.pickle_reader.torch_file import TorchFile, tensors_in
from idlm_ds.checkpoints.tensors import NamedTensors
from idlm_ds.errors import UnsafeCheckpointError, UserError
from tests.checkpoints.gadgets import rewrite

BASE = torch.arange(120.0)


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def check_bits(file: TorchFile, stored: StoredTensor, tensor: Tensor) -> None:
    flat = tensor.detach().flatten()
    for start in range(0, len(flat) + 1, 7):
        for stop in {start, start + 1, start + 10, len(flat)}:
            if start <= stop <= len(flat):
                got = file.read(stored, start, stop)
                assert got.dtype == tensor.dtype
                assert torch.equal(got, flat[start:stop])


@pytest.mark.parametrize(
    "tensor",
    [
        *(BASE.to(dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64)),
        *(BASE.to(dtype) for dtype in (torch.int32, torch.int16, torch.int8, torch.uint8)),
        BASE > 60,
        BASE.view(8, 15),
        BASE.view(8, 15).T,
        BASE[7:100:3],
        BASE.view(2, 3, 20)[:, 1:, 3:11],
        BASE.view(2, 3, 20).permute(2, 0, 1),
        BASE.view(1, 120)[:, :1],
        torch.tensor(3.5),
        torch.empty(0),
        torch.empty(3, 0, 2),
        torch.nn.Parameter(BASE.view(4, 30)),
    ],
    ids=lambda t: f"{str(t.dtype)[6:]}-{list(t.shape)}-{list(t.stride())}",
)
def test_any_run_of_a_tensor_has_the_bits_that_were_saved(tensor: Tensor, tmp_path: Path):
    file = TorchFile(save(tmp_path / "a.pt", {"x": tensor, "whole": BASE}))
    assert file.content["x"].shape == tuple(tensor.shape)
    check_bits(file, file.content["x"], tensor)
    check_bits(file, file.content["whole"], BASE)


def test_views_of_one_storage_are_views(tmp_path: Path):
    file = TorchFile(save(tmp_path / "a.pt", [BASE[:50], BASE[25:75], BASE.view(12, 10)[3]]))
    assert len({stored.storage.key for stored in file.content}) == 1
    for stored, tensor in zip(file.content, [BASE[:50], BASE[25:75], BASE[30:40]], strict=True):
        check_bits(file, stored, tensor)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_read(protocol: int, tmp_path: Path):
    torch.save({"x": BASE, "y": (1, "a")}, tmp_path / "a.pt", pickle_protocol=protocol)
    file = TorchFile(tmp_path / "a.pt")
    check_bits(file, file.content["x"], BASE)
    assert file.content["y"] == (1, "a")


def test_weights_know_their_names_shapes_and_dtypes(tmp_path: Path):
    file = TorchFile(save(tmp_path / "a.pt", {"x": BASE.view(8, 15), "y": BASE.bfloat16()}))
    weights = NamedTensors("it", tensors_in(file, file.content, "it"))
    assert weights.names() == {"x", "y"}
    assert weights.shape("x") == (8, 15)
    assert weights.shape("z") is None
    assert weights.dtype("y") == torch.bfloat16
    assert torch.equal(weights.read("x", (8, 15), 14, 31), BASE[14:31])


def test_little_is_read_of_a_large_file(tmp_path: Path, monkeypatch):
    read = []
    original = os.preadv

    def counting(handle: int, buffers: list[memoryview], offset: int) -> int:
        read.append(sum(map(len, buffers)))
        return original(handle, buffers, offset)

    path = save(tmp_path / "a.pt", {"x": torch.zeros(1000, 1000)})
    monkeypatch.setattr(os, "preadv", counting)
    file = TorchFile(path)
    file.read(file.content["x"], 123_456, 123_466)
    assert read[-1] == 40
    assert sum(read) < 2000


def test_what_comes_in_parts_is_put_together(tmp_path: Path, monkeypatch):
    file = TorchFile(save(tmp_path / "a.pt", {"x": BASE}))
    original = os.preadv
    monkeypatch.setattr(os, "preadv", lambda h, views, at: original(h, [views[0][:13]], at))
    check_bits(file, file.content["x"], BASE)


def test_no_open_file_is_left_behind(tmp_path: Path):
    path = save(tmp_path / "a.pt", {"x": BASE})
    before = set(os.listdir("/proc/self/fd"))
    TorchFile(path)
    (tmp_path / "b.pt").write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError):
        TorchFile(tmp_path / "b.pt")
    assert set(os.listdir("/proc/self/fd")) == before


def content(path: Path) -> bytes:
    return save(path / "good.pt", {"x": BASE, "text": "abc" * 50}).read_bytes()


def one_line(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        TorchFile(path)
    assert not isinstance(caught.value, UnsafeCheckpointError)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("size", [0, 1, 3, 4, 29, 30, 100, 1000, -1, -22, -23, -100])
def test_a_cut_file_is_one_line(size: int, tmp_path: Path):
    (tmp_path / "a.pt").write_bytes(content(tmp_path)[:size])
    one_line(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty file"),
        (b"\x00" * 4096, "does not start as a zip archive"),
        (b"\x7fELF" + bytes(100), "does not start as a zip archive"),
        (b"config: 1\nmore: 2\n", "does not start as a zip archive"),
        (b"PK\x03\x04" + bytes(500), "damaged"),
        (b"PK\x05\x06" + bytes(18), "does not start as a zip archive"),
    ],
)
def test_another_kind_of_file_is_told(data: bytes, words: str, tmp_path: Path):
    (tmp_path / "a.pt").write_bytes(data)
    assert words in one_line(tmp_path / "a.pt")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: None])
def test_what_is_no_file_is_told_at_once(make: Callable[[Path], None], tmp_path: Path):
    make(tmp_path / "a.pt")
    assert "no such file" in one_line(tmp_path / "a.pt")


def archive(entries: dict[str, bytes] | list[tuple[str, bytes]], compress: bool = False) -> bytes:
    target = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(target, "w", kind) as made:
        for name, data in entries.items() if isinstance(entries, dict) else entries:
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.compress_type = name, kind
            made.writestr(info, data)
    return target.getvalue()


PICKLE = b"\x80\x02}."


@pytest.mark.parametrize(
    "name",
    [
        "a/../../etc/passwd",
        "../a",
        "/etc/passwd",
        "a/data/../../x",
        "a\\..\\b",
        "a//b",
        "..",
        "a\x00b",
    ],
)
def test_an_entry_that_points_elsewhere_refuses_the_file(name: str, tmp_path: Path):
    path = tmp_path / "a.pt"
    path.write_bytes(archive({"a/data.pkl": PICKLE, name: b""}))
    with pytest.raises(UnsafeCheckpointError, match="nothing in it was executed"):
        TorchFile(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_refuse_the_file(tmp_path: Path):
    path = tmp_path / "a.pt"
    path.write_bytes(archive([("a/data.pkl", PICKLE), ("a/data.pkl", PICKLE)]))
    with pytest.raises(UnsafeCheckpointError, match="two entries"):
        TorchFile(path)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"a/data.pkl": PICKLE, "b/data.pkl": PICKLE}, "2 entries"),
        ({"data.pkl": PICKLE}, "0 entries"),
        ({"a/x": b""}, "0 entries"),
        ({"a/data.pkl": PICKLE, "a/byteorder": b"big"}, "little-endian"),
        ({"a/data.pkl": b""}, "pickle"),
        ({"a/data.pkl": b"\x80\x02}"}, "pickle"),
    ],
)
def test_an_archive_of_something_else_is_told(entries, words: str, tmp_path: Path):
    (tmp_path / "a.pt").write_bytes(archive(entries))
    assert words in one_line(tmp_path / "a.pt")


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path):
    (tmp_path / "a.pt").write_bytes(archive({"a/data.pkl": bytes(10**7)}, compress=True))
    assert (tmp_path / "a.pt").stat().st_size < 50_000
    assert "PyTorch stores entries as they are" in one_line(tmp_path / "a.pt")


def test_a_flipped_bit_in_the_pickle_is_found(tmp_path: Path):
    data = bytearray(content(tmp_path))
    data[data.index(b"abcabc")] ^= 1
    (tmp_path / "a.pt").write_bytes(data)
    assert "checksum" in one_line(tmp_path / "a.pt")


@pytest.mark.parametrize("change", [b"\x01", b"\xff"])
def test_numbers_that_are_not_all_there_are_told_when_read(change: bytes, tmp_path: Path):
    def longer(stream: bytes) -> bytes:
        # The storage's count of elements, and the tensor's.
        return stream.replace(b"K\x78", b"K" + change)

    path = tmp_path / "a.pt"
    path.write_bytes(rewrite(content(tmp_path), longer))
    file = TorchFile(path)
    with pytest.raises(UserError, match="missing or cut"):
        file.read(file.content["x"], 0, 1)


def test_a_storage_without_its_entry_is_told_when_read(tmp_path: Path):
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content(tmp_path))) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if "/data/" not in name:
                new.writestr(name, old.read(name))
    (tmp_path / "a.pt").write_bytes(target.getvalue())
    file = TorchFile(tmp_path / "a.pt")
    with pytest.raises(UserError, match="missing or cut"):
        file.read(file.content["x"], 0, 1)


def test_no_damage_ends_otherwise_than_in_one_line_or_in_tensors(tmp_path: Path):
    data, draws = content(tmp_path), random.Random(0)
    path, errors = tmp_path / "a.pt", []
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(draws.randint(1, 3)):
            # The table of contents is at the end.
            at = draws.choice([draws.randrange(len(data)), len(data) - draws.randint(1, 500)])
            changed[at] = draws.randrange(256)
        path.write_bytes(changed)
        try:
            file = TorchFile(path)
            tensor = file.content["x"] if isinstance(file.content, dict) else None
            if isinstance(tensor, StoredTensor):
                file.read(tensor, 0, 120)
        except UserError as error:
            errors.append(str(error))
    assert len(errors) > 100
    assert not any("\n" in error for error in errors)
