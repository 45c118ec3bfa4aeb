"""Distillation methods by name, and the teacher they start from."""

from dataclasses import dataclass

from idlm_ds.build.data import make_draws
from idlm_ds.build.engines import EngineSetup, adamw, learning_rate
from idlm_ds.build.networks import Network
from idlm_ds.build.processes import make_sampler_config
from idlm_ds.build.saved_model import SavedModel, find_model
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.config import AdamW
from idlm_ds.engine.dist import World
from idlm_ds.engine.handover import Handover
from idlm_ds.engine.role import RoleEngine, start_role
from idlm_ds.engine.trio import EngineTrio
from idlm_ds.errors import UserError
from idlm_ds.objectives.alternation import Alternation, Phase
from idlm_ds.objectives.idlm import IDLM
from idlm_ds.objectives.self_distillation import Rounds, SelfDistillation, self_distillation
from idlm_ds.processes.base import Process
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.train.program import DistillProgram
from idlm_ds.train.self_distillation import SelfDistillProgram


@dataclass(frozen=True, slots=True)
class Teacher:
    """A checked model and what was found in it."""

    model: SavedModel
    network: Network
    process: Process

    method: SelfDistillation | None
    """How it is distilled, where that needs no fake."""

    chain: SamplerConfig
    """How samples are drawn, from it and from its student."""


def find_teacher(recipe: DistillRecipe, tokenizer: Tokenizer) -> Teacher:
    """Open the teacher and hold it against the recipe.

    Raises:
        UserError: It is unusable, was trained with another vocabulary, on shorter sequences or in
            another diffusion family, or method or sampler are not defined for that family.
    """
    model = find_model(recipe.teacher.path, "teacher.path")
    process = model.process(recipe.process)
    model.check_tokenizer(tokenizer, process)
    model.check_length(recipe.data.length)
    network = model.network(
        recipe.process,
        recipe.data.length,
        checkpoint_activations=recipe.train.checkpoint_activations,
    )
    method, chain = _method(recipe, process), make_sampler_config(recipe.eval, process)
    return Teacher(model, network, process, method, chain)


def _method(recipe: DistillRecipe, process: Process) -> SelfDistillation | None:
    if not recipe.objective.is_in_rounds:
        return None
    if recipe.train.student_steps < recipe.objective.rounds:
        raise UserError(
            f"objective.rounds: {recipe.objective.rounds} do not fit into "
            f"train.student_steps {recipe.train.student_steps}"
        )
    try:
        return self_distillation(recipe.objective.name, process)
    except ValueError as error:
        raise UserError(
            f"objective.name: {error}; process.name is {recipe.process.name}"
        ) from error


def make_program(
    recipe: DistillRecipe, setup: EngineSetup, teacher: Teacher, world: World
) -> DistillProgram | SelfDistillProgram:
    """Start the engines of the recipe's method, all with the teacher's weights."""
    if teacher.method is not None:
        return _self_distillation(recipe, setup, teacher, teacher.method, world)
    return _inverse_distillation(recipe, setup, teacher, world)


def _inverse_distillation(
    recipe: DistillRecipe, setup: EngineSetup, teacher: Teacher, world: World
) -> DistillProgram:
    fake_scale = recipe.optim.fake_lr_scale
    trio = EngineTrio(
        teacher=_start("teacher", setup, teacher, None),
        fake=_start("fake", setup, teacher, adamw(recipe.optim, scale=fake_scale)),
        student=_start("student", setup, teacher, adamw(recipe.optim)),
    )
    trio.fake.start_ema(recipe.ema.decay)
    trio.student.start_ema(recipe.ema.decay)
    plan = Alternation(recipe.objective.fake_steps)
    updates = recipe.train.student_steps
    t_min, input_t_min = _smallest_times(recipe)
    return DistillProgram(
        trio=trio,
        objective=IDLM(teacher.process, is_input_differentiated=recipe.objective.name != "dmd"),
        plan=plan,
        rates={
            Phase.FAKE: learning_rate(recipe.optim, updates * plan.fake_steps, scale=fake_scale),
            Phase.STUDENT: learning_rate(recipe.optim, updates),
        },
        draws=make_draws(recipe, world, t_min=t_min),
        input_t_min=input_t_min,
    )


def _self_distillation(
    recipe: DistillRecipe,
    setup: EngineSetup,
    teacher: Teacher,
    method: SelfDistillation,
    world: World,
) -> SelfDistillProgram:
    frozen = _start("teacher", setup, teacher, None)
    student = _start("student", setup, teacher, adamw(recipe.optim))
    student.start_ema(recipe.ema.decay)
    updates = recipe.train.student_steps
    return SelfDistillProgram(
        teacher=frozen,
        student=student,
        objective=method,
        rounds=Rounds(updates=updates, count=recipe.objective.rounds, grid=recipe.objective.grid),
        rate=learning_rate(recipe.optim, updates),
        draws=make_draws(recipe, world, t_min=_smallest_times(recipe)[0]),
        handover=Handover(student, frozen),
    )


def _smallest_times(recipe: DistillRecipe) -> tuple[float, float]:
    """Of samples that are noised again, and of the text the student is given."""
    objective = recipe.objective
    t_min = recipe.process.t_min if objective.t_min is None else objective.t_min
    return t_min, t_min if objective.input_t_min is None else objective.input_t_min


def _start(name: str, setup: EngineSetup, teacher: Teacher, optimizer: AdamW | None) -> RoleEngine:
    make, source = teacher.network.make, teacher.model.weights
    return start_role(name, make, source, setup.json, setup.numerics, optimizer)
