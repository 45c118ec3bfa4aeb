"""The end of a distillation run: table, figure, samples."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from idlm_ds.build.processes import make_sampler_config
from idlm_ds.console import say
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.engine.trio import Borrowed, Learner
from idlm_ds.evaluation.controls import Evaluation, Measured, Protocol
from idlm_ds.evaluation.page import format_table, write_report
from idlm_ds.evaluation.samples_file import write_samples
from idlm_ds.metrics.judge import Judge
from idlm_ds.processes.base import Process
from idlm_ds.recipes.schema import DistillRecipe


def report(
    recipe: DistillRecipe,
    output: Path,
    teacher: Borrowed,
    student: Learner,
    process: Process,
    tokenizer: Tokenizer,
    judge: Judge,
    heldout: npt.NDArray[np.int64],
    *,
    world: World,
) -> None:
    """Measure everything, print the table and write the files.

    Collective: every rank must call.
    """
    section = recipe.eval
    protocol = Protocol(
        num_samples=section.num_samples,
        length=recipe.data.length,
        student_steps=section.steps,
        teacher_steps=section.teacher_steps,
        matched_steps=section.matched_steps,
        target_steps=8 if 8 in section.steps else section.steps[-1],
        batch=section.batch,
        seed=section.seed,
        chain=make_sampler_config(section, process),
    )
    evaluation = Evaluation(process, tokenizer, judge, protocol, world=world)
    is_first = world.is_first
    if is_first:
        say(f"\nmeasuring: {section.num_samples} samples a row, judge {judge.name}")
    measured = []
    for one in evaluation.run(teacher, student, torch.from_numpy(heldout)):
        measured.append(one)
        if is_first:
            _note(one)
    if is_first:
        _write(recipe, output, judge, measured)
    world.barrier()


def _note(one: Measured) -> None:
    row = one.row
    steps = "" if row.steps is None else f" at {row.steps} steps"
    say(f"  {row.display_name}{steps}: GenPPL {row.gen_ppl:.1f}, entropy {row.entropy:.2f}")


def _write(recipe: DistillRecipe, output: Path, judge: Judge, measured: list[Measured]) -> None:
    rows = [m.row for m in measured]
    settings = {
        "judge": judge.name,
        "sampler": measured[-1].row.sampler,
        "precision": recipe.eval.precision,
        "seed": str(recipe.eval.seed),
        "samples a row": str(recipe.eval.num_samples),
        "tokens a sample": str(recipe.data.length),
        "weights": f"student at EMA {recipe.ema.decay}",
    }
    shown = {}
    for one in measured:
        row = one.row
        if row.steps is not None:
            name = f"{row.model}-{row.steps}"
            write_samples(
                output / "samples" / f"{name}.json",
                one.texts,
                gen_ppl=row.gen_ppl,
                entropy=row.entropy,
                provenance=row.to_json(),
            )
        if (row.model, row.steps) in (("teacher", 8), ("teacher", 1024), ("student", 8)):
            shown[f"{row.display_name}, {row.steps} steps"] = one.texts
    write_report(output, rows, title=recipe.name, settings=settings, samples=shown)
    say(f"\n{format_table(rows)}")
    say("  " + ", ".join(f"{k} {v}" for k, v in settings.items()))
    for heading, texts in shown.items():
        say(f"\n{heading}:")
        for text in texts[:2]:
            say(f"  | {' '.join(text.split())}")
    say(f"\nreport   {output}/report.md, report.json, frontier.png")
    say(f"samples  {output}/samples/")
    say(f"student  {output}/student/  (launchers/sample.py --checkpoint {output}/student)")
