"""Tables of what ``bench_step.py`` measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bench.floor import floor_of
from bench.rounds import Timing, median_total, medians, plain_values
from bench.sizes import Sizes

MIB = 2**20


def of_times(
    sizes: Sizes, seen: Mapping[str, Sequence[Sequence[Timing]]], peak: float
) -> dict[str, Any]:
    """Reduce timings to figures; ``faster`` is against the first variant."""
    floor = floor_of(sizes)
    rows: dict[str, Any] = {}
    for label, rounds in seen.items():
        (fake, student), whole = medians(rounds), median_total(rounds)
        first = next(iter(rows.values()), {"iteration_s": whole.wall, "iteration_cpu_s": whole.cpu})
        rows[label] = {
            "fake_s": fake.wall,
            "student_s": student.wall,
            "iteration_s": whole.wall,
            "iteration_cpu_s": whole.cpu,
            "faster": first["iteration_s"] / whole.wall,
            "faster_cpu": first["iteration_cpu_s"] / whole.cpu,
            "of_floor": floor.total / peak / whole.wall,
            "rounds": plain_values(rounds),
        }
    parts = {"trunk": floor.trunk, "projection": floor.projection}
    return {"needed_flops": {"total": floor.total, **parts}, "variants": rows}


def time_lines(sizes: Sizes, figures: Mapping[str, Any], rounds: int) -> list[str]:
    """Lay out the table of seconds."""
    needed, peak = figures["needed_flops"]["total"], figures["peak_of_products"]
    rows = figures["variants"]
    lines = [
        f"{sizes.label}; {torch.get_num_threads()} threads, medians of {rounds}",
        f"products: {peak / 1e9:.1f} GFLOP/s at best; an iteration needs {needed / 1e9:.1f} GFLOP: "
        f"floor {needed / peak:.2f} s",
        f"{'':<46} {'fake':>7} {'student':>7} {'both':>7} {'cpu s':>7} {'faster':>7} {'floor':>6}",
    ]
    for label, row in rows.items():
        seconds = " ".join(f"{row[k]:7.2f}" for k in ("fake_s", "student_s", "iteration_s"))
        share = f"{row['faster']:6.2f}x {row['of_floor']:6.2f}"
        lines.append(f"{label:<46} {seconds} {row['iteration_cpu_s']:7.2f} {share}")
    return lines + _stages(rows)


def _stages(rows: Mapping[str, Any]) -> list[str]:
    """Compare ZeRO stages 3 and 1, where both were measured."""
    stages = {label.split()[1]: row for label, row in rows.items() if ", zero" in label}
    if not {"zero1", "zero3"} <= stages.keys():
        return []
    ratio = stages["zero3"]["iteration_s"] / stages["zero1"]["iteration_s"]
    return [f"zero3 over zero1: {ratio:.2f}"]


def memory_lines(sizes: Sizes, figures: Mapping[str, Any]) -> list[str]:
    """Lay out the table of memory; the first row is the yardstick."""
    first = next(iter(figures.values()))
    lines = [
        f"{sizes.label}; MiB over weights, one set of gradients, moments and running means",
        f"{'':<30} {'fake':>9} {'student':>9} {'share':>7} {'with optimizer':>16} {'share':>7}",
    ]
    for name, row in figures.items():
        label = f"{name} ({row['kind']} AdamW)"
        passes = {p: row[f"passes_{p}"] for p in ("fake", "student")}
        parts = " ".join(f"{value / MIB:9.1f}" for value in passes.values())
        most = max(first["passes_fake"], first["passes_student"])
        shares = max(passes.values()) / most, row["whole"] / first["whole"]
        whole = f"{row['whole'] / MIB:16.1f} {shares[1]:7.3f}"
        lines.append(f"{label:<30} {parts} {shares[0]:7.3f} {whole}")
    return lines
