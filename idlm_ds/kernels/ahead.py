"""Compilation of collected launches without a GPU, and what the machine code uses."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from idlm_ds.kernels.launch import Launch

POINTERS = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
}

ALIGNED = 16


@dataclass(frozen=True, slots=True)
class Usage:
    """What one program of a compiled kernel takes."""

    registers: int
    """Per thread."""

    stack: int
    """Bytes per thread that did not fit in registers."""

    shared: int
    """Bytes of shared memory."""

    warps: int


def compile_ahead(launch: Launch, arch: int) -> Usage:
    """Compile a launch as Triton would for a GPU of the architecture, such as 90.

    Raises:
        RuntimeError: The machine code cannot be read.
    """
    options = {k: v for k, v in launch.settings.items() if k.startswith("num_")}
    compiled = triton.compile(_source(launch), target=GPUTarget("cuda", arch, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as code:
        code.write(compiled.asm["cubin"])
        code.flush()
        registers, stack = _used(code.name)
    return Usage(registers, stack, compiled.metadata.shared, compiled.metadata.num_warps)


def _source(launch: Launch) -> Any:
    """Specialise as Triton does: integers of 1 are constants, multiples of 16 are known to be."""
    names = launch.kernel.arg_names
    values = dict(zip(names, launch.arguments, strict=False))
    constants = {k: v for k, v in launch.settings.items() if not k.startswith("num_")}
    constants |= {k: 1 for k, v in values.items() if isinstance(v, int) and v == 1}
    signature = {name: "constexpr" if name in constants else _kind(values[name]) for name in names}
    attrs = {
        (index,): [["tt.divisibility", ALIGNED]]
        for index, name in enumerate(names)
        if name not in constants and _is_aligned(values[name])
    }
    return ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=attrs)


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return POINTERS[value.dtype]
    if isinstance(value, float):
        return "fp32"
    return "i32" if abs(value) < 2**31 else "i64"


def _is_aligned(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, int) and value % ALIGNED == 0)


def _used(code: str) -> tuple[int, int]:
    """Read registers and stack of machine code."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    done = subprocess.run([str(tool), "-res-usage", code], capture_output=True, text=True)
    used = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout + done.stderr)
    if used is None:
        raise RuntimeError(f"cuobjdump: {(done.stdout + done.stderr).strip()[-300:]}")
    return int(used[1]), int(used[2])
