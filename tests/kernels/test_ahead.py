"""Every kernel compiles for the GPUs in use, without a GPU, within their limits."""

from pathlib import Path

import pytest

from idlm_ds import kernels
from idlm_ds.kernels.survey import compiled

pytest.importorskip("triton", reason="Triton is not installed")

KERNELS = Path(kernels.__file__).parent

MOST_STACK = 16
"""Bytes a thread: none with Triton 3.8; a number or two around a float64 division with 3.9."""

MOST_SHARED = {"80": 166_912, "90": 232_448}
"""Bytes a program, by architecture."""


def test_no_kernel_spills_registers_or_takes_too_much_shared_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    usages = compiled()
    folders = {path.parent.name for path in KERNELS.glob("*/triton_impl.py")}
    assert {name.split(",")[0] for name in usages} == folders
    for name, by_arch in usages.items():
        assert by_arch.keys() == MOST_SHARED.keys()
        for arch, usage in by_arch.items():
            assert usage["stack"] <= MOST_STACK, (name, arch, usage)
            assert usage["shared"] <= MOST_SHARED[arch], (name, arch, usage)
