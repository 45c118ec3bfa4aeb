"""Measure the fused operators, and compare with what the hardware allows.

python tools/bench_kernels.py
python tools/bench_kernels.py --rows 4096 --vocab 126464 --json figures.json

The floor is the time an H100 needs to move the bytes, or to do the arithmetic if that takes longer.
On a GPU both forms are timed and compared; on a CPU only the reference is. What the machine code
of each kernel uses is read from a compilation, for which no GPU is needed.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idlm_ds.cli import Parser, launch
from idlm_ds.kernels.cases import Case, Sizes, cases
from idlm_ds.kernels.survey import compiled

MEMORY, FLOAT32 = 3.35e12, 67e12
"""Of an H100 SXM a second: bytes and float32 operations."""


def floor(case: Case) -> float:
    """Return the least microseconds an H100 takes."""
    return 1e6 * max(case.bytes / MEMORY, case.flops / FLOAT32)


def microseconds(
    call: Callable[[tuple[Any, ...]], object], inputs: tuple[Any, ...], rounds: int
) -> float:
    """Time a call, the median of some rounds after one that does not count."""
    is_cuda = inputs[0].is_cuda
    times = []
    for _ in range(rounds + 1):
        fresh = copied(inputs)
        if is_cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        call(fresh)
        if is_cuda:
            torch.cuda.synchronize()
        times.append(1e6 * (time.perf_counter() - began))
    return statistics.median(times[1:])


def copied(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copy the tensors, since operators of scores overwrite them."""
    return tuple(
        x.detach().clone().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x
        for x in inputs
    )


def measure(case: Case, rounds: int) -> dict[str, float]:
    """Measure one operator."""
    inputs = case.inputs()
    figures = {"floor": floor(case), "MB": case.bytes / 1e6}
    figures["reference"] = microseconds(lambda x: case.run("reference", x), inputs, rounds)
    if inputs[0].is_cuda and find_spec("triton"):
        figures["triton"] = microseconds(lambda x: case.run("triton_impl", x), inputs, rounds)
        forms = (case.run(form, copied(inputs)) for form in ("triton_impl", "reference"))
        figures["error"] = max(
            float((got - right).abs().max() / right.abs().max().clamp(min=1e-30))
            for got, right in zip(*forms, strict=True)
        )
    return figures


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = Parser(description=__doc__.splitlines()[0])
    has_cuda = torch.cuda.is_available()
    defaults = Sizes() if has_cuda else Sizes(rows=64, batch=1, length=256)
    for field in fields(Sizes):
        value = getattr(defaults, field.name)
        parser.add_argument(f"--{field.name}", type=int, default=value, help=f"default: {value}")
    parser.add_argument("--rounds", type=int, default=5, help="the median counts (default: 5)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--no-compile", action="store_true", help="leave machine code out")
    args = parser.parse_args(argv)
    sizes = Sizes(**{field.name: getattr(args, field.name) for field in fields(Sizes)})
    device = torch.device("cuda" if has_cuda else "cpu")
    figures = {case.name: measure(case, args.rounds) for case in cases(sizes, device)}
    usages = compiled() if find_spec("triton") and not args.no_compile else {}
    report(figures, usages, torch.cuda.get_device_name() if has_cuda else "CPU")
    if args.json:
        args.json.write_text(json.dumps({"operators": figures, "kernels": usages}, indent=1))


def report(figures: dict[str, dict[str, float]], usages: dict[str, Any], device: str) -> None:
    """Print both tables."""
    print(f"microseconds on {device}; floor: of an H100")
    print(f"{'':<24} {'MB':>9} {'floor':>9} {'reference':>11} {'triton':>9} {'error':>8}")
    for name, row in figures.items():
        end = f"{row['triton']:9.1f} {row['error']:8.1e}" if "triton" in row else ""
        print(f"{name:<24} {row['MB']:9.1f} {row['floor']:9.2f} {row['reference']:11.1f} {end}")
    for name, usage in usages.items():
        parts = [
            f"sm_{arch}: {u['registers']:3} registers, stack {u['stack']}, shared {u['shared']:6}"
            for arch, u in usage.items()
        ]
        print(f"{name:<38} {' | '.join(parts)}")


if __name__ == "__main__":
    launch(main, is_alone=True)
