"""The end of a distillation run: table, figure, samples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from idlm_ds.console import say
from idlm_ds.engine.trio import Borrowed, Learner
from idlm_ds.evaluation.controls import Measured, RunEvaluation
from idlm_ds.evaluation.page import RUN_COLUMNS, comparisons, shared_by_rows, write_report
from idlm_ds.evaluation.samples_file import write_samples
from idlm_ds.evaluation.table import to_text, value_with_error
from idlm_ds.provenance import describe_machine

SHOWN = (("teacher", 8), ("teacher", 1024), ("student", 8))
"""Model and steps of the samples that console and page show."""


def report(
    evaluation: RunEvaluation,
    output: Path,
    student: Learner,
    teacher: Borrowed,
    heldout: npt.NDArray[np.int64],
    *,
    after_row: Callable[[], None] = lambda: None,
) -> None:
    """Measure everything, print the table and write the files.

    ``after_row`` is called on every rank after each row; it may end the run.

    Collective: every rank must call.
    """
    world, recipe = evaluation.world, evaluation.recipe
    if world.is_first:
        judge = evaluation.judge.name
        say(f"\nmeasuring: {recipe.eval.num_samples} samples a row, judge {judge}")
    measured = []
    for each in evaluation.measure(student, teacher, torch.from_numpy(heldout)):
        measured.append(each)
        if world.is_first:
            _say_row(each)
        after_row()
    if world.is_first:
        settings = {
            "recipe": recipe.name,
            "weights": f"student at EMA {recipe.ema.decay}",
            "batch_size": recipe.eval.batch,
        }
        machine = describe_machine(world.device.type, world.size)
        _write(output, settings, machine, measured)
    world.barrier()


def _say_row(measured: Measured) -> None:
    row = measured.row
    steps = "" if row["steps"] is None else f" at {row['steps']} steps"
    latent = "" if row["latent"] is None else f", latent {row['latent']}"
    relaxation = "" if row["relaxation"] is None else f", relaxation {row['relaxation']}"
    figures = [
        f"{heading} {value_with_error(row[key], row[f'{key}_se'])}"
        for key, heading in (("gen_ppl", "GenPPL"), ("entropy", "entropy"))
        if row[key] is not None
    ]
    say(f"  {row['model']}{steps}{latent}{relaxation}: {', '.join(figures)}")


def _write(
    output: Path, settings: dict[str, Any], machine: dict[str, Any], measured: Sequence[Measured]
) -> None:
    rows = [each.row for each in measured]
    shown = {}
    for each in measured:
        row = each.row
        if each.stream is not None:
            write_samples(
                output / "samples" / f"{each.stream}-{row['steps']}.json",
                each.texts,
                gen_ppl=each.gen_ppl,
                entropy=row["entropy"],
                provenance=row,
            )
        if (row["model"], row["steps"]) in SHOWN:
            shown[f"{row['model']}, {row['steps']} steps"] = each.texts
    title = settings["recipe"]
    write_report(output, rows, title=title, settings={**settings, **machine}, samples=shown)
    say(f"\n{to_text(rows, RUN_COLUMNS)}")
    for line in comparisons(rows):
        say(line)
    say(", ".join(f"{key} {value}" for key, value in {**shared_by_rows(rows), **settings}.items()))
    for heading, texts in shown.items():
        say(f"\n{heading}:")
        for text in texts[:2]:
            say(f"  | {' '.join(text.split())}")
    say(f"\nreport   {output}/report.md, report.json, frontier.png")
    say(f"samples  {output}/samples/")
    say(f"student  {output}/student/  (launchers/sample.py --checkpoint {output}/student)")
