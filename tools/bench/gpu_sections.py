"""What ``gpu_check.py`` measures: each section is a function that yields rows of figures.

A section asks for nothing that another has made, so that one that fails stands alone.
"""

import gc
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias
from unittest.mock import patch

import torch
from torch import Generator, nn

from bench import machine, memory
from bench.rounds import timed
from bench.row_blocks import rows_at_a_time
from bench.sizes import Sizes
from bench.step_variants import ENGINES, Plain, Variant, through_engines
from idlm_ds.models import attention
from idlm_ds.objectives.alternation import Phase
from idlm_ds.train.flops import peak_flops, training_flops

MIB = 2**20
ROUNDS = 3
KERNELS = Path(__file__).parents[1] / "bench_kernels.py"
PACKAGES = ("torch", "triton", "deepspeed", "flash-attn")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
ALL_MASKED = 0.999
"""Smallest time at which all but a thousandth of a sequence is masked: rows are positions."""

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of everything that is measured."""

    rows: tuple[Sizes, ...]
    """Of the student's phase; a small trunk, so that rows of scores are what counts."""

    step: Sizes
    """Of whole iterations."""


FULL = Scale(
    rows=(
        Sizes(vocab=126_464, batch=4, length=1024, hidden=1024, blocks=1, t_min=ALL_MASKED),
        Sizes(
            vocab=50_258, batch=16, length=1024, hidden=768, heads=12, blocks=1, t_min=ALL_MASKED
        ),
    ),
    step=Sizes(hidden=768, blocks=12, heads=12, batch=8, length=1024),
)
_TINY = Sizes(vocab=300, batch=2, length=16, hidden=16, heads=2, blocks=1)
TINY = Scale(rows=(_TINY, replace(_TINY, vocab=200, t_min=ALL_MASKED)), step=_TINY)


def versions(scale: Scale, device: torch.device) -> Iterator[Row]:
    """Name the card, its driver and the packages."""
    del scale
    yield {"name": "card", "note": card(device)}
    yield {"name": "driver", "note": _driver() or "none"}
    for package in PACKAGES:
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "not installed"
        yield {"name": package, "note": found}


def student_phase(scale: Scale, device: torch.device) -> Iterator[Row]:
    """Measure the student's phase over long vocabularies: milliseconds, and memory that it adds."""
    for sizes in scale.rows:
        for label, dtype in DTYPES.items():
            plain = Plain(sizes, device, lambda seed, s=sizes, d=dtype: _random(s, seed, device, d))
            positions = sizes.batch * sizes.length
            about = f"V={sizes.vocab} P={positions} {label}"
            measure = partial(_phase_row, plain, device)
            yield _tried(f"published {about}", partial(measure, plain.published("foreach")))
            yield _tried(f"ours {about}", partial(measure, plain.ours("fused")))
            with rows_at_a_time(positions):
                yield _tried(f"ours, unblocked {about}", partial(measure, plain.ours("fused")))
            del plain, measure


def kernels(scale: Scale, device: torch.device) -> Iterator[Row]:
    """Compare kernels with their references, by the program that does it."""
    del scale
    if not KERNELS.exists():
        yield {"name": KERNELS.name, "note": "this version has no such program"}
        return
    if device.type != "cuda":
        yield {"name": KERNELS.name, "note": "needs a GPU"}
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "kernels.json"
        command = [sys.executable, str(KERNELS), "--json", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = (done.stdout if done.returncode == 0 else done.stderr).splitlines() or ["?"]
        if done.returncode:
            raise RuntimeError(f"{KERNELS.name}: {lines[-1]}")
        print("\n".join(lines))
        yield {"name": KERNELS.name, "note": "see the file", "figures": json.loads(out.read_text())}


def iteration(scale: Scale, device: torch.device) -> Iterator[Row]:
    """Measure iterations in bf16: published, and through engines of every stage, in one process."""
    from idlm_ds.engine.dist import in_world

    plain = _plain_bf16(scale.step, device)
    published = partial(_iteration_row, scale.step, device, plain.published("foreach"))
    yield _tried("published, plain bf16", published)
    del plain, published
    with in_world() as world:
        for name in ENGINES:
            yield _tried(f"ours, {name}", partial(_engine_row, scale.step, device, name, world))


def flash_attention(scale: Scale, device: torch.device) -> Iterator[Row]:
    """Measure an iteration in bf16 with and without flash-attn."""
    found = importlib.util.find_spec("flash_attn") is not None
    for is_on in (False, True) if found else (False,):
        plain = _plain_bf16(scale.step, device)
        ours = partial(_iteration_row, scale.step, device, plain.ours("fused"))
        with patch.object(attention, "HAS_FLASH_ATTN", is_on):
            yield _tried(f"ours, flash-attn {'on' if is_on else 'off'}, plain bf16", ours)
        del plain, ours
    if not found:
        yield {"name": "flash-attn on", "note": "not installed"}


SECTIONS: Mapping[str, Callable[[Scale, torch.device], Iterator[Row]]] = {
    "versions": versions,
    "student-phase": student_phase,
    "kernels": kernels,
    "iteration": iteration,
    "flash-attention": flash_attention,
}


def card(device: torch.device) -> str:
    """Name the GPU, or the processor where there is none."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else machine.cpu_model()


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""


def _tried(name: str, measure: Callable[[], Row]) -> Row:
    """Measure one row; where that fails, for lack of memory say, the row says why."""
    try:
        return {"name": name, **measure()}
    except (RuntimeError, ValueError) as error:
        problem = (str(error).splitlines() or ["?"])[0]
    gc.collect()
    return {"name": name, "note": f"failed: {problem}"}


def _phase_row(plain: Plain, device: torch.device, variant: Variant) -> Row:
    """Measure the student's phases of a variant."""
    # Kernels are compiled and moments made in the first iteration.
    variant.phase(), variant.phase()
    seconds, extra = [], []
    parameters = plain.learners[0].module.parameters()
    gradients = sum(p.numel() * p.element_size() for p in parameters)
    for _ in range(ROUNDS):
        variant.phase()
        kept = _settle(device)
        seconds.append(timed(variant.phase, device).wall)
        extra.append(_peak(device) - kept - gradients)
    return {"ms": 1e3 * median(seconds), "mib": max(extra) / MIB}


def _engine_row(sizes: Sizes, device: torch.device, name: str, world: Any) -> Row:
    variant = through_engines(sizes, name, world, precision="bf16")
    return {**_iteration_row(sizes, device, variant), "note": variant.label}


def _iteration_row(sizes: Sizes, device: torch.device, variant: Variant) -> Row:
    """Measure iterations of a variant, as tokens a second and as a share of the peak."""

    def both() -> None:
        variant.phase()
        variant.phase()

    both()
    kept = _settle(device)
    seconds = median(timed(both, device).wall for _ in range(ROUNDS))
    tokens, phases = sizes.batch * sizes.length, (Phase.FAKE, Phase.STUDENT)
    flops = tokens * sum(training_flops(sizes.config, p, length=sizes.length) for p in phases)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return {
        "ms": 1e3 * seconds,
        "mib": (_peak(device) - kept) / MIB,
        "tokens_per_s": len(phases) * tokens / seconds,
        "mfu": flops / seconds / peak_flops(device, dtype),
    }


def _plain_bf16(sizes: Sizes, device: torch.device) -> Plain:
    return Plain(sizes, device, lambda seed: _random(sizes, seed, device, torch.bfloat16))


def _settle(device: torch.device) -> int:
    """Free what is unused, start a new peak and return the bytes that stay."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    kept = memory.settled()
    memory.start_peak()
    return kept


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else memory.peak()


@torch.no_grad()
def _random(sizes: Sizes, seed: int, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Make a network on the device itself, which is faster than reading its weights there."""
    generator = Generator(device).manual_seed(seed)
    with torch.device(device):
        module = sizes.make().to(dtype)
    for parameter in module.parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0)
        else:
            parameter.normal_(std=0.02, generator=generator)
    return module.requires_grad_(False).eval()
