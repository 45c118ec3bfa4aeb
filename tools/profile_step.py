"""Show where the time of an iteration of distillation goes.

python tools/profile_step.py --recipe quickstart
python tools/profile_step.py --batch 4 --trace trace.json --json figures.json

Each operator's own time is added to its phase and part. ``vocabulary projections`` are products
outside the trunk, ``row losses`` everything else on rows as long as the vocabulary, ``other`` the
rest; on a GPU the time of kernels counts, and what is missing to the whole is waiting. A profile
slows a step down, so its time without one is printed too. ``--trace`` is for chrome://tracing.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from bench import machine
from bench.labels import labelled
from bench.parts import PARTS, PHASES, Amount, by_phase
from bench.plain_roles import Kind
from bench.profile_report import profile_lines
from bench.rounds import medians, timed
from bench.sizes import Sizes
from bench.step_variants import Plain, Variant
from torch.profiler import ProfilerActivity, profile, record_function

from idlm_ds.cli import launch, parse_options
from idlm_ds.options import AT_LEAST_1, Options, option


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileOptions(Options):
    """What is profiled."""

    sizes: Sizes
    recipe: str | None = option(None, "distillation recipe (name or path) that gives the sizes")
    variant: Literal["ours", "published"] = option("ours", "whose step")
    optimizer: Kind = option("fused", "how AdamW runs")
    rounds: int = option(3, "iterations timed without a profile", rule=AT_LEAST_1)
    threads: int = option(2, "threads of PyTorch", rule=AT_LEAST_1)
    device: str = option("cpu", "where networks are")
    trace: Path | None = option(None, "write a Chrome trace to this file")
    json: Path | None = option(None, "write the figures to this file")


def take_profile(plain: Plain, variant: Variant, device: torch.device) -> profile:
    """Profile one iteration."""
    is_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    networks = [role.module for role in plain.roles.values()]
    with labelled(networks), profile(activities=activities, record_shapes=True) as taken:
        for phase in PHASES:
            with record_function(phase):
                variant.phase()
                if is_cuda:
                    torch.cuda.synchronize(device)
    return taken


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    options = parse_options(ProfileOptions, __doc__, argv)
    sizes = Sizes.of_recipe(options.recipe) if options.recipe else options.sizes
    device = machine.use(options.threads, options.device)
    plain = Plain(sizes, device)
    variant = getattr(plain, options.variant)(options.optimizer)
    variant.phase(), variant.phase()
    rounds = [[timed(variant.phase, device) for _ in PHASES] for _ in range(options.rounds)]
    seconds = {p: t.wall for p, t in zip(PHASES, medians(rounds), strict=True)}
    taken = take_profile(plain, variant, device)
    if options.trace:
        taken.export_chrome_trace(str(options.trace))
    phases = by_phase(taken, sizes.vocab, is_cuda=device.type == "cuda")
    parts = {n: {p: asdict(phases[p].get(n, Amount())) for p in PHASES} for n in PARTS}
    flops = sum(row["flops"] for part in parts.values() for row in part.values())
    peak = machine.peak_of_products(sizes, device)
    figures = {"seconds": seconds, "parts": parts, "flops": flops, "peak_of_products": peak}
    print("\n".join(profile_lines(sizes, figures)), flush=True)
    if options.json:
        saved = {"settings": asdict(options), "machine": machine.describe(device)}
        options.json.write_text(json.dumps(saved | {"figures": figures}, indent=1, default=str))


if __name__ == "__main__":
    launch(main, is_alone=True)
