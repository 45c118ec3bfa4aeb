"""GenPPL against entropy over a sweep of temperatures: teacher, student, real text, a control."""

from collections.abc import Sequence

import torch

from idlm_ds.console import say
from idlm_ds.data.windows import in_order, pack
from idlm_ds.engine.dist import World
from idlm_ds.evaluation.cell import Cell
from idlm_ds.evaluation.draw import SampleSet
from idlm_ds.evaluation.figure import Curve, Point, draw_sweep
from idlm_ds.evaluation.genppl import evaluate, judge_label, load_judges, shared_settings
from idlm_ds.evaluation.options import ChainGrid, FrontierOptions
from idlm_ds.evaluation.row import Row
from idlm_ds.evaluation.sources import (
    Source,
    find_source,
    read_documents,
    sampler_configs,
    token_cell,
)
from idlm_ds.evaluation.store import write_text
from idlm_ds.evaluation.table import to_markdown, to_text, write_results

REAL = "real text"
CONTROL = "control: a phrase, repeated"

GUIDE = """\
Each curve is one model at one number of steps; its points are temperatures. Lower and further right
is better. Compare curves at equal entropy: sharpening a model moves it along its own curve, towards
low GenPPL and low entropy, and is no progress.

The control writes no text at all: it repeats the first words of a real passage. Where it undercuts
real text in GenPPL, GenPPL alone says nothing; entropy gives it away.
"""


def run_frontier(options: FrontierOptions, world: World) -> None:
    """Draw, score and plot.

    Collective: every rank must call.

    Raises:
        UserError: A file, a name or a combination of options cannot be used.
    """
    steps = {options.teacher: options.teacher_steps, options.student: options.student_steps}
    sources = [_source(spec, of_model, options) for spec, of_model in steps.items()]
    judges = load_judges(options.judging.judges, world)
    rows = evaluate(sources, _texts(options, sources[0]), judges, options, world)
    if world.is_first:
        folder = options.output
        write_results(folder, rows, shared_settings(options, world))
        draw_sweep(_panels(rows, options), folder / "frontier.png")
        page = f"# Frontier\n\n![GenPPL against entropy](frontier.png)\n\n{GUIDE}\n"
        write_text(folder / "frontier.md", page + to_markdown(rows) + "\n")
        say(to_text(rows))
        say(f"written to {folder}")


def _source(spec: str, steps: Sequence[int], options: FrontierOptions) -> Source:
    grid = ChainGrid(steps=steps, temperatures=options.temperatures, nuclei=options.nuclei)
    configs = sampler_configs(grid)
    return find_source(spec, options.model, configs, options.seeds, options.num_samples)


def _texts(options: FrontierOptions, source: Source) -> list[tuple[Cell, SampleSet]]:
    """Real text and the control, of as many tokens as the samples."""
    tokenizer, length = source.opened.tokenizer, source.opened.length
    judging = options.judging
    documents = read_documents(judging.reference, "--reference", judging.heldout_every)
    real = torch.from_numpy(in_order(pack(documents, tokenizer), length, options.num_samples))
    texts = [token_cell(REAL, real, tokenizer)]
    for period in options.periods:
        phrases = real[:, torch.arange(length) % period]
        texts.append(token_cell(f"{CONTROL} every {period} tokens", phrases, tokenizer))
    return texts


def _panels(rows: Sequence[Row], options: FrontierOptions) -> dict[str, list[Curve]]:
    """Curves by judge; texts without a scored token have no place in the picture."""
    points: dict[str, dict[tuple[str, str], list[Point]]] = {}
    for row in rows:
        if row["gen_ppl"] is not None:
            kind, name, label = _names(row, options)
            curves = points.setdefault(judge_label(row["judge"], row["masking"]), {})
            curves.setdefault((kind, name), []).append(Point.of(row, label))
    return {
        judge: [
            Curve(kind, name, sorted(of_curve, key=lambda point: point.entropy))
            for (kind, name), of_curve in curves.items()
        ]
        for judge, curves in points.items()
    }


def _names(row: Row, options: FrontierOptions) -> tuple[str, str, str]:
    """Kind and name of the curve a row belongs to, and the label of its point."""
    if row["model"] == REAL:
        return "real text", REAL, ""
    if row["model"].startswith(CONTROL):
        period = row["model"].removeprefix(f"{CONTROL} every ").removesuffix(" tokens")
        return "control", CONTROL, period
    role = "teacher" if row["model"] == options.teacher else "student"
    cut = "" if row["nucleus"] == 1 else f", top-p {row['nucleus']:g}"
    return role, f"{role}, {row['steps']} steps{cut}", f"{row['temperature']:g}"
