"""What comes after training: the report of a run, now or later."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from idlm_ds.build.judges import JudgeFolder
from idlm_ds.build.methods import Teacher
from idlm_ds.checkpoints.tensors import fingerprint
from idlm_ds.console import say
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.engine.role import FrozenRole
from idlm_ds.engine.trio import Borrowed, Learner
from idlm_ds.errors import UserError
from idlm_ds.evaluation.controls import RunEvaluation
from idlm_ds.evaluation.kept import KeptSets
from idlm_ds.evaluation.report import report
from idlm_ds.kernels import dispatch
from idlm_ds.metrics.judge import Judge
from idlm_ds.objectives.self_distillation import SelfDistillation
from idlm_ds.provenance import describe_machine
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.runs.session import RunOptions, Session

KEPT = "evaluation"
"""Folder of a run with the sets its report has drawn and scored."""


def measure_run(
    session: Session,
    recipe: DistillRecipe,
    teacher: Teacher,
    tokenizer: Tokenizer,
    judge: JudgeFolder,
    heldout: npt.NDArray[np.int64],
    roles: tuple[Learner, Borrowed],
    *,
    after_row: Callable[..., None],
) -> None:
    """Measure student and teacher and write the report; what an earlier try kept is used.

    ``roles`` are the student, which has been saved, and the teacher. After each row ``after_row``
    is called on every rank, with the number of sets drawn so far as ``rows``; it may end the run.

    Collective: every rank must call.

    Raises:
        UserError: The judge turns out to be unusable; on every rank.
    """
    world, (student, original) = session.world, roles
    if isinstance(original, FrozenRole) and isinstance(teacher.method, SelfDistillation):
        # In rounds the student's former self took the teacher's place.
        original.reload(teacher.model.weights)
    output = session.options.output
    prints = None
    if world.is_first:
        files = sorted((output / "student").glob("*.safetensors"))
        prints = {"student": fingerprint(*files), "teacher": teacher.model.fingerprint}
    kept = KeptSets(output / KEPT, shared_settings(recipe, world), world)
    kept_before = kept.count()
    evaluation = RunEvaluation(
        recipe=recipe,
        process=teacher.process,
        tokenizer=tokenizer,
        judge=_load(judge, world),
        judge_print=judge.fingerprint,
        weights=world.agree(prints),
        kept=kept,
        world=world,
    )

    def between() -> None:
        after_row(rows=kept.count() - kept_before)

    report(evaluation, output, student, original, heldout, after_row=between)


def _load(judge: JudgeFolder, world: World) -> Judge:
    """Load the judge on every rank, or stop every rank with the same error."""
    problem = loaded = None
    try:
        loaded = judge.load(world.device)
    except UserError as error:
        problem = str(error)
    problem = world.first_problem(problem)
    if problem is not None or loaded is None:
        raise UserError(problem)
    return loaded


def shared_settings(recipe: DistillRecipe, world: World) -> Mapping[str, Any]:
    """Collect what all sets of samples and scores depend on beside their own settings.

    The number of ranks and the batch are no part of it: no figure depends on them.
    """
    machine = describe_machine(world.device.type, world.size)
    del machine["ranks"]
    return {
        "process": asdict(recipe.process),
        "precision": recipe.train.precision,
        "kernels": dispatch.describe(world.device),
        "machine": machine | {name: version(name) for name in ("transformers", "tokenizers")},
        "gpu": torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else None,
    }


def say_how_to_measure(options: RunOptions, world: World) -> None:
    """Say the command that measures a run which has ended without a report."""
    if world.is_first:
        command = shlex.join(measuring_command(options, world.size))
        say(f"not measured (eval.when: never); to measure it: {command}")


def measuring_command(options: RunOptions, ranks: int) -> list[str]:
    """Return the command that writes the report of a run that has ended.

    Any number of processes gives the same figures; by default there are as many as in the run.
    """
    launcher = ["python"] if ranks == 1 else ["deepspeed", "--num_accelerators", str(ranks)]
    output = options.output
    arguments = ["--config", str(options.config or "CONFIG"), "--recipe", f"{output}/recipe.yaml"]
    arguments += ["--output", str(output), "--resume", "auto", "eval.when=end"]
    return [*launcher, "launchers/distill.py", *arguments]
