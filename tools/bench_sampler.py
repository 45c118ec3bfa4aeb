"""Measure samplers beside the published way to write them and beside the network alone.

python tools/bench_sampler.py --batch 4
python tools/bench_sampler.py --blockwise --vocab 126464 --blocks 4 --batch 1 --length 64
python tools/bench_sampler.py --memory --json figures.json

``dense`` projects every position in every step and draws from the whole vocabulary in float64, as
``tools/bench/published_sampler.py`` says; ``body`` makes as many passes of the network as ours and
projects nothing, which no sampler with these passes can beat. Rounds go in turns and medians count.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bench import machine, memory
from bench.own_process import in_own_process
from bench.rounds import in_turns, median_total, plain_values, timed
from bench.sampler_variants import BODY, DENSE, OURS, Drawing, Sampling
from bench.sizes import Sizes

from idlm_ds.cli import launch, parse_options
from idlm_ds.options import AT_LEAST_1, Options, option

MIB = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerOptions(Options):
    """What is measured, and how."""

    sizes: Sizes
    sampling: Sampling
    rounds: int = option(5, "measured sets of each variant", rule=AT_LEAST_1)
    threads: int = option(2, "threads of PyTorch", rule=AT_LEAST_1)
    device: str = option("cpu", "where the network is")
    memory: bool = option(False, "measure peak memory in place of time")
    json: Path | None = option(None, "write the figures to this file")
    only: Literal["dense", "ours", "body"] | None = option(
        None, "measure the memory of this variant, in this process"
    )


def measure_time(options: SamplerOptions) -> dict[str, Any]:
    """Measure the seconds of all variants."""
    device = machine.use(options.threads, options.device)
    drawing = Drawing(options.sizes, options.sampling, device)
    # The body needs to know how many passes ours makes.
    drawing.ours()
    works = {n: lambda way=way: [timed(way, device)] for n, way in drawing.ways.items()}
    seen = in_turns(works, options.rounds)
    rows = {
        name: {"s": (t := median_total(r)).wall, "cpu_s": t.cpu, "rounds": plain_values(r)}
        for name, r in seen.items()
    }
    ours = rows[OURS]["s"]
    ratios = {"faster_than_dense": rows[DENSE]["s"] / ours, "over_body": ours / rows[BODY]["s"]}
    return {"passes": drawing.passes, **ratios, "variants": rows}


def measure_memory_of(options: SamplerOptions) -> dict[str, int]:
    """Measure the most memory over the network's weights that one variant takes."""
    memory.give_back_at_once()
    drawing = Drawing(options.sizes, options.sampling, machine.use(options.threads))
    drawing.body()
    kept = memory.settled()
    way = drawing.ways[str(options.only)]
    return {"extra": max(memory.peak_of(way) for _ in range(options.rounds)) - kept, "kept": kept}


def measure_memory(argv: Sequence[str]) -> dict[str, Any]:
    """Measure the memory of all variants, each in its own process."""
    rows = {name: in_own_process(__file__, argv, name) for name in (DENSE, OURS, BODY)}
    return {"share": rows[OURS]["extra"] / rows[DENSE]["extra"], "variants": rows}


def report(options: SamplerOptions, figures: dict[str, Any]) -> None:
    """Print the table."""
    width = f", prompts of {options.sampling.prompt}" if options.sampling.blockwise else ""
    about = f"{options.sampling.steps} steps{width}; {options.threads} threads"
    print(f"{options.sizes.label}; {about}; medians of {options.rounds}")
    for name, row in figures["variants"].items():
        if options.memory:
            print(f"{name:<8} {row['extra'] / MIB:10.1f} MiB over the network")
        else:
            print(f"{name:<8} {row['s']:9.3f} s {row['cpu_s']:9.3f} cpu s")
    if options.memory:
        print(f"ours takes {figures['share']:.3f} of dense")
        return
    ratios = f"{figures['faster_than_dense']:.2f}x faster than dense, {figures['over_body']:.2f}"
    print(f"ours is {ratios} of the body, in {figures['passes']:.1f} passes")


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    options = parse_options(SamplerOptions, __doc__, argv)
    if options.only:
        print(json.dumps(measure_memory_of(options)))
        return
    figures = measure_memory(argv) if options.memory else measure_time(options)
    report(options, figures)
    if options.json:
        about = machine.describe(machine.use(options.threads, options.device))
        saved = {"settings": asdict(options), "machine": about, "figures": figures}
        options.json.write_text(json.dumps(saved, indent=1, default=str))


if __name__ == "__main__":
    launch(main, is_alone=True)
