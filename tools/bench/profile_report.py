"""The table of ``profile_step.py``."""

from collections.abc import Mapping
from typing import Any

import torch

from bench.parts import PHASES
from bench.sizes import Sizes


def profile_lines(sizes: Sizes, figures: Mapping[str, Any]) -> list[str]:
    """Lay out seconds by part and phase, operations, and the fraction of the peak."""
    fake, student = (figures["seconds"][phase] for phase in PHASES)
    parts, peak, whole = figures["parts"], figures["peak_of_products"], fake + student
    total = sum(row["seconds"] for part in parts.values() for row in part.values())
    lines = [
        f"{sizes.label}; {torch.get_num_threads()} threads",
        f"without a profile: fake {fake:.3f} s, student {student:.3f} s, both {whole:.3f} s",
        f"{'seconds in a profile':<24} {'fake':>8} {'student':>8} {'share':>6} {'GFLOP':>8}  peak",
    ]
    for name, row in parts.items():
        seconds = [row[phase]["seconds"] for phase in PHASES]
        flops, spent = sum(row[phase]["flops"] for phase in PHASES), sum(seconds)
        of_peak = f"{flops / spent / peak:5.2f}" if flops and spent else ""
        share = f"{spent / total if total else 0.0:6.1%} {flops / 1e9:8.1f}"
        lines.append(f"{name:<24} {seconds[0]:8.3f} {seconds[1]:8.3f} {share} {of_peak}".rstrip())
    least = figures["flops"] / peak
    products = f"{figures['flops'] / 1e9:.1f} GFLOP of products at {peak / 1e9:.1f} GFLOP/s"
    lines.append(f"{products}: {least:.3f} s, {least / whole:.2f} of the time without a profile")
    return lines
