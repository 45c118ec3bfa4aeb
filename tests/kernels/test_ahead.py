"""Every kernel compiles for the GPUs in use, without a GPU, within their limits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from idlm_ds import kernels

pytest.importorskip("triton", reason="Triton is not installed")

KERNELS = Path(kernels.__file__).parent
MOST_SHARED = {"80": 166_912, "90": 232_448}


def test_no_kernel_spills_registers_or_takes_too_much_shared_memory(tmp_path):
    # A process of its own: one that has imported Triton for its interpreter cannot compile.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "idlm_ds.kernels.survey"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    usages = json.loads(done.stdout)
    folders = {path.parent.name for path in KERNELS.glob("*/triton_impl.py")}
    assert {name.split(",")[0] for name in usages} == folders
    for name, by_arch in usages.items():
        for arch, usage in by_arch.items():
            assert usage["stack"] == 0, (name, arch, usage)
            assert usage["shared"] <= MOST_SHARED[arch], (name, arch, usage)
