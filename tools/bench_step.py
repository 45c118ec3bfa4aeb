"""Measure an iteration of distillation beside the published way to write it.

python tools/bench_step.py
python tools/bench_step.py --family duo --batch 4 --engines zero1 zero3 --json figures.json
python tools/bench_step.py --memory

An iteration is a phase of the fake and one of the student, with optimizer, gradient norm and
running mean. All variants start from the same weights; rounds go in turns and medians count.
``tools/bench/published.py`` says what the published step does, ``tools/bench/floor.py`` which
operations no step can do without.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bench import machine, memory, step_report
from bench.own_process import in_own_process
from bench.plain_roles import Kind
from bench.rounds import Timing, in_turns, timed
from bench.sizes import Sizes
from bench.step_memory import measure
from bench.step_variants import OURS, PUBLISHED, Plain, Variant, through_engines

from idlm_ds.cli import launch, parse_options
from idlm_ds.options import AT_LEAST_1, Options, option


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOptions(Options):
    """What is measured, and how."""

    sizes: Sizes
    rounds: int = option(5, "measured iterations of each variant", rule=AT_LEAST_1)
    threads: int = option(2, "threads of PyTorch", rule=AT_LEAST_1)
    device: str = option("cpu", "where networks are")
    optimizer: Kind | None = option(
        None, "AdamW of both (default: foreach for the published step, fused for ours)"
    )
    anomaly: bool = option(False, "also the published step as shipped, which searches for NaN")
    logged: bool = option(False, "also ours in a step that is logged: the gap's value, metrics")
    engines: Sequence[Literal["zero1", "zero2", "zero3"]] = option(
        (), "also ours through DeepSpeed engines, in one process"
    )
    memory: bool = option(False, "measure peak memory in place of time")
    json: Path | None = option(None, "write the figures to this file")
    only: Literal["published", "ours"] | None = option(
        None, "measure the memory of this variant, in this process"
    )

    def kind(self, name: str) -> Kind:
        """Say how a variant runs AdamW."""
        return self.optimizer or ("fused" if name == OURS else "foreach")


def variants(options: StepOptions, stack: ExitStack) -> list[Variant]:
    """Make everything that is compared, the published step first."""
    device = machine.use(options.threads, options.device)
    plain = Plain(options.sizes, device)
    made = [plain.published(options.kind(PUBLISHED))]
    if options.anomaly:
        made.append(plain.as_shipped(options.kind(PUBLISHED)))
    made.append(plain.ours(options.kind(OURS)))
    if options.logged:
        made.append(plain.ours(options.kind(OURS), is_logged=True))
    if options.engines:
        from idlm_ds.engine.dist import in_world

        world = stack.enter_context(in_world())
        made += [through_engines(options.sizes, name, world) for name in options.engines]
    return made


def measure_time(options: StepOptions) -> dict[str, Any]:
    """Measure the seconds of all variants."""
    with ExitStack() as stack:
        made = variants(options, stack)
        device = machine.use(options.threads, options.device)
        peak = machine.peak_of_products(options.sizes, device)

        def iteration(variant: Variant) -> list[Timing]:
            return [timed(variant.phase, device) for _ in ("fake", "student")]

        seen = in_turns({v.label: lambda v=v: iteration(v) for v in made}, options.rounds)
        return {"peak_of_products": peak, **step_report.of_times(options.sizes, seen, peak)}


def measure_memory_of(options: StepOptions) -> dict[str, Any]:
    """Measure the memory of one variant, in this process."""
    memory.give_back_at_once()
    plain = Plain(options.sizes, machine.use(options.threads))
    make = plain.ours if options.only == OURS else plain.published
    return measure(make(options.kind(str(options.only))), plain.learners, options.rounds)


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    options = parse_options(StepOptions, __doc__, argv)
    if options.only:
        print(json.dumps(measure_memory_of(options)))
        return
    if options.memory:
        kinds = {name: options.kind(name) for name in (PUBLISHED, OURS)}
        figures = {n: in_own_process(__file__, argv, n) | {"kind": kinds[n]} for n in kinds}
        lines = step_report.memory_lines(options.sizes, figures)
    else:
        figures = measure_time(options)
        lines = step_report.time_lines(options.sizes, figures, options.rounds)
    print("\n".join(lines), flush=True)
    if options.json:
        about = machine.describe(machine.use(options.threads, options.device))
        saved = {"settings": asdict(options), "machine": about, "figures": figures}
        options.json.write_text(json.dumps(saved, indent=1, default=str))


if __name__ == "__main__":
    launch(main)
