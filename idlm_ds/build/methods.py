"""Distillation methods by name, and the teacher they start from."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from idlm_ds.build.data import step_settings
from idlm_ds.build.engines import EngineSetup, adamw, learning_rate
from idlm_ds.build.latent import WithProjection, with_latent
from idlm_ds.build.networks import Network, count_parameters
from idlm_ds.build.processes import make_sampler_config
from idlm_ds.build.saved_model import SavedModel, find_model
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.engine.handover import Handover
from idlm_ds.engine.role import FrozenRole, TrainedRole, start_frozen, start_trained
from idlm_ds.engine.sharing import groups_of
from idlm_ds.engine.trio import Borrowed
from idlm_ds.engine.weights import WeightSource
from idlm_ds.errors import UserError
from idlm_ds.objectives.alternation import Alternation, Phase
from idlm_ds.objectives.base import Method
from idlm_ds.objectives.self_distillation import Rounds, SelfDistillation
from idlm_ds.processes.base import Process
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.registry.methods import METHODS
from idlm_ds.registry.table import load
from idlm_ds.samplers.block_config import AnySampler
from idlm_ds.train.renewal import Renewal
from idlm_ds.train.step import Program

LARGEST_WITH_MEAN = 1e9
"""Parameters of the largest fake that has a running mean where the recipe does not say."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """A checked model, what is made of it, and how it is distilled and sampled."""

    model: SavedModel
    network: Network
    student: Network
    """The same network, with the latent that the recipe asks for."""

    process: Process
    method: Method
    chain: AnySampler
    """How samples are drawn from it, and from its student but for the latent."""


def find_teacher(recipe: DistillRecipe, tokenizer: Tokenizer) -> Teacher:
    """Open the teacher and check it against the recipe.

    Raises:
        UserError: It is unusable, was trained with another vocabulary, on shorter sequences or in
            another diffusion family, or method or sampler are not defined for that family.
    """
    model = find_model(recipe.teacher.path, "teacher.path")
    process = model.process(recipe.process)
    model.check_tokenizer(tokenizer, process)
    model.check_length(recipe.data.length)
    if size := model.about.latent:
        raise UserError(
            f"teacher.path: {model.path} is a student with a latent of {size}; a teacher has none"
        )
    network = model.network(
        recipe.process,
        recipe.data.length,
        checkpoint_activations=recipe.train.checkpoint_activations,
    )
    latent = recipe.student.latent
    student = with_latent(
        network, latent, checkpoint_activations=recipe.train.checkpoint_activations
    )
    chain = make_sampler_config(recipe.eval, process, recipe.data.length)
    return Teacher(model, network, student, process, make_method(recipe, process), chain)


def make_method(recipe: DistillRecipe, process: Process) -> Method:
    """Build the method a recipe names.

    Raises:
        UserError: It is not defined for the recipe's family, or its rounds do not fit the run.
    """
    objective, updates = recipe.objective, recipe.train.student_steps
    row = METHODS[objective.name]
    if recipe.process.name not in row.families:
        kind = "masked" if row.is_masked else "uniform"
        raise UserError(
            f"objective.name: {row.name} is defined for {kind} families: "
            f"{', '.join(row.families)}; process.name is {recipe.process.name}"
        )
    t_min = recipe.process.t_min if objective.t_min is None else objective.t_min
    arguments: dict[str, Any] = {
        "plan": Alternation(objective.fake_steps),
        "input_t_min": t_min if objective.input_t_min is None else objective.input_t_min,
        "full_noise_fraction": objective.full_noise_fraction,
        "noisings": objective.noisings,
        "latent": recipe.student.latent.size,
    }
    if "rounds" in row.takes:
        if updates < objective.rounds:
            raise UserError(
                f"objective.rounds: {objective.rounds} do not fit into "
                f"train.student_steps {updates}"
            )
        arguments["rounds"] = Rounds(updates=updates, count=objective.rounds, grid=objective.grid)
    settings = {name: arguments[name] for name in row.takes}
    method: Method = load(row.entry_point)(process, t_min=t_min, **settings)
    return method


def make_program(
    recipe: DistillRecipe, setup: EngineSetup, teacher: Teacher, world: World
) -> Program:
    """Start the engines of the recipe's method, all with the teacher's weights.

    The projection of a student's latent is new.
    """
    method, updates = teacher.method, recipe.train.student_steps
    start = partial(_start, recipe, setup, teacher)
    frozen = _start_teacher(recipe, setup, teacher, world)
    roles: dict[str, Borrowed] = {"teacher": frozen}
    rates = {Phase.STUDENT: learning_rate(recipe.optim, updates)}
    # A fake only where the method has phases in which one learns.
    if fake_updates := updates * (method.plan.cycle - 1):
        scale = recipe.optim.fake_lr_scale
        has_mean = keeps_mean_of_fake(recipe, teacher.network)
        roles["fake"] = start("fake", scale=scale, has_mean=has_mean)
        rates[Phase.FAKE] = learning_rate(recipe.optim, fake_updates, scale=scale)
    roles["student"] = student = start("student", has_latent=True)
    program = partial(Program, method, roles, rates, step_settings(recipe, world))
    if not isinstance(method, SelfDistillation):
        return program()
    return program(prepare=Renewal(method.rounds, Handover(student, frozen)))


def keeps_mean_of_fake(recipe: DistillRecipe, network: Network) -> bool:
    """Tell whether the fake has a running mean: as the recipe says, else by its size."""
    if recipe.ema.fake is not None:
        return recipe.ema.fake
    return count_parameters(network) <= LARGEST_WITH_MEAN


def _start_teacher(
    recipe: DistillRecipe, setup: EngineSetup, teacher: Teacher, world: World
) -> FrozenRole:
    make, source = teacher.network.make, teacher.model.weights
    groups = groups_of(recipe.teacher.sharding, world)
    return start_frozen("teacher", make, source, setup.json, setup.numerics, groups)


def _start(
    recipe: DistillRecipe,
    setup: EngineSetup,
    teacher: Teacher,
    name: str,
    *,
    scale: float = 1.0,
    has_latent: bool = False,
    has_mean: bool = True,
) -> TrainedRole:
    network, section = teacher.student if has_latent else teacher.network, recipe.student.latent
    source: WeightSource = teacher.model.weights
    if has_latent and section.size:
        source = WithProjection(source, network, section, seed=recipe.seed)
    return start_trained(
        name,
        network.make,
        source,
        setup.json,
        setup.numerics,
        adamw(recipe.optim, scale=scale),
        ema_decay=recipe.ema.decay if has_mean else None,
    )
