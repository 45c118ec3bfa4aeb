"""A distillation run, from its recipe to the student and the report it leaves."""

from dataclasses import replace
from pathlib import Path

import torch

from idlm_ds.build.data import load_windows, make_loader
from idlm_ds.build.engines import EngineSetup
from idlm_ds.build.judges import load_judge
from idlm_ds.build.methods import Teacher, find_teacher, make_program
from idlm_ds.build.tokenizers import load_tokenizer
from idlm_ds.checkpoints.model_folder import write_network
from idlm_ds.console import say
from idlm_ds.data.rows import Rows
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.export import gather_weights
from idlm_ds.engine.role import RoleEngine
from idlm_ds.errors import UserError
from idlm_ds.evaluation.controls import RunEvaluation
from idlm_ds.evaluation.report import report
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Process
from idlm_ds.provenance import git_commit
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.runs.session import Session, checkpointer, logging_hooks
from idlm_ds.train.hooks.preview import Preview
from idlm_ds.train.loop import run_phases
from idlm_ds.train.self_distillation import SelfDistillProgram


def run_distill(recipe: DistillRecipe, setup: EngineSetup, session: Session) -> Path:
    """Distil a teacher, save the student, and measure both.

    Collective: every rank must call.

    Returns:
        The student's folder.
    """
    world = session.world
    tokenizer = load_tokenizer(recipe.data.tokenizer)
    teacher = find_teacher(recipe, tokenizer)
    judge = load_judge(recipe.eval.judge, world.device)
    count = recipe.eval.num_samples
    windows, heldout = load_windows(recipe, tokenizer, num_heldout=count, world=world)
    _check_unmasked(windows, teacher.process)
    teacher_print = world.agree(teacher.model.fingerprint if world.is_first else None)
    state = session.state(windows, teacher=teacher_print)
    found = session.find_start(state)
    session.open_output()

    program = make_program(recipe, setup, teacher, session.world)
    start = session.restore(found, program)
    stop = recipe.train.student_steps * program.plan.cycle
    hooks, _ = logging_hooks(session, program, start=start, stop=stop)
    hooks += [
        Preview(
            program.student,
            teacher.process,
            tokenizer,
            every=recipe.log.sample_every,
            chain=replace(teacher.chain, steps=min(8, recipe.eval.steps[-1])),
            length=recipe.data.length,
            seed=recipe.eval.seed,
            world=world,
        ),
        checkpointer(session, program, state, stop=stop),
    ]
    loader = make_loader(recipe, windows, world)
    run_phases(program, loader, hooks, start=start, stop=stop)
    folder = _save_student(program.student, teacher, tokenizer, session)
    if isinstance(program, SelfDistillProgram):
        program.teacher.reload(teacher.model.weights)
    evaluation = RunEvaluation(
        recipe=recipe,
        process=teacher.process,
        tokenizer=tokenizer,
        judge=judge,
        world=world,
    )
    report(evaluation, session.options.output, program.student, program.teacher, heldout)
    return folder


def _check_unmasked(windows: Rows, process: Process) -> None:
    """Text in which the mask occurs would be noise from the start."""
    if isinstance(process, Absorbing) and windows.holds(process.mask_id):
        raise UserError(
            f"data.corpus: token {process.mask_id}, the teacher's mask, occurs in it; remove it "
            "from the text, or check that data.tokenizer is the teacher's"
        )


@torch.no_grad()
def _save_student(
    student: RoleEngine, teacher: Teacher, tokenizer: Tokenizer, session: Session
) -> Path:
    folder = session.options.output / "student"
    weights = gather_weights(student, is_first=session.world.is_first)
    if session.world.is_first:
        origin = {
            "made_by": f"{session.recipe.objective.name}, running-mean weights",
            "recipe": session.recipe.name,
            "teacher": teacher.model.origin,
            "student_updates": student.updates,
            "commit": git_commit(),
        }
        write_network(folder, teacher.network.card, weights, origin=origin)
        tokenizer.save(folder)
        say(f"student: {folder}")
    session.world.barrier()
    return folder
