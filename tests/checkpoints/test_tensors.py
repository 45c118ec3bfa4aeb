"""Files of tensors: for whom the user lets read, and without a copy on the way."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from idlm_ds.checkpoints import tensors
from idlm_ds.checkpoints.model_folder import write_network
from idlm_ds.checkpoints.tensors import save_tensors


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def mode(request) -> Iterator[int]:
    """Mode of new files under some umask."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def test_files_have_the_mode_that_the_umask_asks_for(mode, tmp_path: Path):
    save_tensors(tmp_path / "rank-00000.safetensors", {"w": torch.zeros(2)})
    write_network(tmp_path, {"model_type": "toy"}, {"w": torch.zeros(2)})
    files = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()}
    names = ("rank-00000.safetensors", "config.json", "model.safetensors")
    assert files == dict.fromkeys(names, mode)


def test_parts_of_one_storage_are_written_from_where_they_are(tmp_path: Path, monkeypatch):
    flat, given = torch.arange(12.0), []
    parts = {"b": flat[7:12], "a": flat[:3], "none": flat[3:3], "c": flat[3:7]}
    save_file = tensors.save_file
    monkeypatch.setattr(
        tensors, "save_file", lambda t, *a, **k: given.append(t) or save_file(t, *a, **k)
    )
    path = tmp_path / "x.safetensors"
    save_tensors(path, parts, {"fragments": "{}"})
    stored = load_file(path)
    assert {n: t.tolist() for n, t in stored.items()} == {n: t.tolist() for n, t in parts.items()}
    assert safe_open(path, framework="pt").metadata() == {"fragments": "{}"}
    assert {n: t.data_ptr() for n, t in given[0].items()} == {
        n: t.data_ptr() for n, t in parts.items()
    }


def test_what_the_disk_says_is_an_error_of_the_system(tmp_path: Path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        save_tensors(tmp_path / "nowhere" / "x.safetensors", {"w": torch.zeros(2)})

    def full(*_, **__):
        reason = "I/O error: No space left on device (os error 28)"
        raise tensors.SafetensorError(f"Error while serializing: {reason}")

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OSError, match="No space left on device") as refused:
        save_tensors(tmp_path / "x.safetensors", {"w": torch.zeros(2)})
    assert refused.value.errno == errno.ENOSPC
