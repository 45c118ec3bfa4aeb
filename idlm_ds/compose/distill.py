"""A distillation run, from its recipe to the student and the report it leaves."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from idlm_ds.checkpoints.model_folder import CONFIG, WEIGHTS, read_card, write_network
from idlm_ds.checkpoints.tensors import FileWeights, fingerprint
from idlm_ds.compose.batches import load_windows, make_draws, make_loader
from idlm_ds.compose.families import check_kin, make_process, read_family
from idlm_ds.compose.output import git_commit
from idlm_ds.compose.parts import (
    EngineSetup,
    Network,
    adamw,
    known_network,
    learning_rate,
    load_tokenizer,
    locate,
)
from idlm_ds.compose.report import load_judge, make_chain, report
from idlm_ds.compose.session import Session, checkpointer, logging_hooks
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.export import gather_weights
from idlm_ds.engine.role import start_role
from idlm_ds.engine.trio import EngineTrio
from idlm_ds.errors import UserError
from idlm_ds.objectives.alternation import Alternation, Phase
from idlm_ds.objectives.idlm import IDLM
from idlm_ds.processes.base import Process
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.train.console import say
from idlm_ds.train.loop import run_phases
from idlm_ds.train.preview import Preview
from idlm_ds.train.program import DistillProgram


@dataclass(frozen=True, slots=True)
class Teacher:
    """A checked model folder and what was found in it."""

    folder: Path
    network: Network
    process: Process


def find_teacher(recipe: DistillRecipe, tokenizer: Tokenizer) -> Teacher:
    """Read the teacher's card and hold it against the recipe.

    Raises:
        UserError: The folder is unusable, or the teacher was trained with another vocabulary
            or another diffusion family.
    """
    folder = locate(recipe.teacher.path, "teacher.path")
    card = read_card(folder)
    check_kin(recipe.process, read_family(card.process, folder), folder)
    process = make_process(recipe.process, len(tokenizer))
    if card.network.get("vocab_size") != process.vocab_size:
        raise UserError(
            f"teacher.path: {folder} has a vocabulary of {card.network.get('vocab_size')}, but "
            f"data.tokenizer gives {len(tokenizer)} words and one more, {process.vocab_size} in all"
        )
    return Teacher(folder, known_network(card), process)


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
    windows, heldout = load_windows(recipe, tokenizer, num_heldout=recipe.eval.num_samples)
    teacher_files = (teacher.folder / CONFIG, teacher.folder / WEIGHTS)
    state = session.state(windows, teacher=fingerprint(*teacher_files))
    found = session.find_start(state)
    session.open_output()

    program = _program(recipe, setup, teacher, session)
    start = session.restore(found, program)
    stop = recipe.train.student_steps * program.plan.cycle
    hooks, _ = logging_hooks(session, start=start, stop=stop)
    hooks += [
        Preview(
            program.trio.student,
            teacher.process,
            tokenizer,
            every=recipe.log.sample_every,
            chain=replace(make_chain(recipe.eval), steps=min(8, recipe.eval.steps[-1])),
            length=recipe.data.length,
            seed=recipe.eval.seed,
            world=world,
        ),
        checkpointer(session, program, state, stop=stop),
    ]
    loader = make_loader(recipe, windows, world)
    run_phases(program, loader, hooks, start=start, stop=stop)
    folder = _save_student(program.trio, teacher.network, tokenizer, session)
    report(
        recipe,
        session,
        program.trio.teacher,
        program.trio.student,
        teacher.process,
        tokenizer,
        judge,
        heldout,
    )
    return folder


def _program(
    recipe: DistillRecipe, setup: EngineSetup, teacher: Teacher, session: Session
) -> DistillProgram:
    """Three engines that start as the same network."""
    fake_scale = recipe.optim.fake_lr_scale
    optimizers = {
        "teacher": None,
        "fake": adamw(recipe.optim, scale=fake_scale),
        "student": adamw(recipe.optim),
    }
    roles = {
        name: start_role(
            name,
            teacher.network.make,
            FileWeights(teacher.folder / WEIGHTS),
            setup.json,
            setup.numerics,
            optimizer,
        )
        for name, optimizer in optimizers.items()
    }
    for name in ("fake", "student"):
        roles[name].start_ema(recipe.ema.decay)
    plan = Alternation(recipe.objective.fake_steps)
    updates = recipe.train.student_steps
    return DistillProgram(
        trio=EngineTrio(**roles),
        objective=IDLM(teacher.process),
        plan=plan,
        rates={
            Phase.FAKE: learning_rate(recipe.optim, updates * plan.fake_steps, scale=fake_scale),
            Phase.STUDENT: learning_rate(recipe.optim, updates),
        },
        draws=make_draws(recipe, session.world),
    )


@torch.no_grad()
def _save_student(
    trio: EngineTrio, network: Network, tokenizer: Tokenizer, session: Session
) -> Path:
    folder = session.options.output / "student"
    weights = gather_weights(trio.student, is_first=session.world.is_first)
    if session.world.is_first:
        origin = {
            "made_by": "inverse distillation, running-mean weights",
            "recipe": session.recipe.name,
            "student_updates": trio.student.updates,
            "commit": git_commit(),
        }
        write_network(folder, network.card, weights, origin=origin)
        tokenizer.save(folder)
        say(f"student: {folder}")
    session.world.barrier()
    return folder
