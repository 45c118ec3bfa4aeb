"""A distillation run, from its recipe to the student and the report it leaves."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from idlm_ds.build.data import load_windows, make_loader
from idlm_ds.build.engines import EngineSetup
from idlm_ds.build.judges import load_judge
from idlm_ds.build.locate import from_cache
from idlm_ds.build.methods import Teacher, find_teacher, make_program
from idlm_ds.build.tokenizers import load_tokenizer
from idlm_ds.checkpoints.model_folder import write_network
from idlm_ds.console import say
from idlm_ds.data.rows import Rows
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.export import gather_weights
from idlm_ds.engine.role import FrozenRole, TrainedRole
from idlm_ds.engine.turns import host_first
from idlm_ds.errors import UserError
from idlm_ds.evaluation.controls import RunEvaluation
from idlm_ds.evaluation.report import report
from idlm_ds.objectives.self_distillation import SelfDistillation
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Process
from idlm_ds.provenance import git_commit
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.runs.session import (
    Session,
    checkpointer,
    leave_if_asked,
    logging_hooks,
    run_to_end,
)
from idlm_ds.train.hooks.preview import Preview


def run_distill(recipe: DistillRecipe, setup: EngineSetup, session: Session) -> Path | None:
    """Distil a teacher, save the student, and measure both.

    Collective: every rank must call.

    Returns:
        The student's folder; None where a hook ended the run early.

    Raises:
        Preempted: A signal ended the run.
    """
    world = session.world
    session.choose_kernels()
    # One rank of each host fetches what comes from the hub.
    with host_first(world) as is_leader, from_cache(not is_leader):
        tokenizer = load_tokenizer(recipe.data.tokenizer)
        teacher = find_teacher(recipe, tokenizer)
        judge = load_judge(recipe.eval.judge, world.device)
    count = recipe.eval.num_samples
    windows, heldout = load_windows(recipe, tokenizer, num_heldout=count, world=world)
    _check_unmasked(windows, teacher.process)
    teacher_print = world.agree(teacher.model.fingerprint if world.is_first else None)
    state = session.state(windows, teacher=teacher_print)
    checkpoint = session.find_start(state)
    session.open_output()

    program = make_program(recipe, setup, teacher, session.world)
    start = session.restore(checkpoint, program)
    frozen, student = program.roles["teacher"], program.learners["student"]
    stop = recipe.train.student_steps * program.method.plan.cycle
    hooks, _ = logging_hooks(session, program, start=start, stop=stop)
    preview = Preview(
        student,
        teacher.process,
        tokenizer,
        every=recipe.log.sample_every,
        chain=replace(
            teacher.chain,
            steps=min(8, recipe.eval.steps[-1]),
            latent=recipe.student.latent.size,
        ),
        length=recipe.data.length,
        seed=recipe.eval.seed,
        world=world,
    )
    loader = make_loader(recipe, windows, world)
    saver = checkpointer(session, program, state, stop=stop)
    hooks.append(preview)
    if not run_to_end(session, program, loader, hooks, saver, start=start, stop=stop):
        return None
    folder = _save_student(student, teacher, tokenizer, session)
    if isinstance(frozen, FrozenRole) and isinstance(teacher.method, SelfDistillation):
        # In rounds the student's former self took the teacher's place.
        frozen.reload(teacher.model.weights)
    evaluation = RunEvaluation(
        recipe=recipe,
        process=teacher.process,
        tokenizer=tokenizer,
        judge=judge,
        world=world,
    )
    between = partial(leave_if_asked, session, start=start, phase=stop)
    report(evaluation, session.options.output, student, frozen, heldout, after_row=between)
    return folder


def _check_unmasked(windows: Rows, process: Process) -> None:
    """Refuse text in which the mask occurs: it would be noise from the start."""
    if isinstance(process, Absorbing) and windows.holds(process.mask_id):
        raise UserError(
            f"data.corpus: token {process.mask_id}, the teacher's mask, occurs in it; remove it "
            "from the text, or check that data.tokenizer is the teacher's"
        )


@torch.no_grad()
def _save_student(
    student: TrainedRole, teacher: Teacher, tokenizer: Tokenizer, session: Session
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
        write_network(folder, teacher.student.card, weights, origin=origin)
        tokenizer.save(folder)
        say(f"student: {folder}")
    session.world.barrier()
    return folder
