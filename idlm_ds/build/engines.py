"""Engine settings, optimizer and learning rate from a recipe."""

from dataclasses import dataclass
from pathlib import Path

from idlm_ds.engine.config import AdamW, EngineJson, Numerics, check_agreement, read_engine_json
from idlm_ds.errors import UserError
from idlm_ds.recipes.batch import accumulation
from idlm_ds.recipes.schema import DistillRecipe, Recipe
from idlm_ds.recipes.sections import OptimSection, TeacherSection
from idlm_ds.train.lr import LearningRate


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """Configuration of a run's engines."""

    json: EngineJson
    numerics: Numerics
    note: str = ""
    """What the user should know of it, in one line."""


def engine_setup(config: Path, recipe: Recipe, *, world: int) -> EngineSetup:
    """Read the DeepSpeed file and do the batch arithmetic.

    Raises:
        UserError: The file is bad, the batch does not divide, or the two contradict each other.
    """
    file = read_engine_json(config)
    if isinstance(recipe, DistillRecipe):
        _check_sharding(recipe.teacher, file)
    train = recipe.train
    json = file.in_world(world, train.precision)
    numerics = Numerics(
        micro_batch=train.micro_batch,
        accumulation=accumulation(
            global_batch=train.global_batch, micro_batch=train.micro_batch, world=world
        ),
        world=world,
        precision=train.precision,
        clip=recipe.optim.clip,
    )
    check_agreement(json, numerics)
    is_other = json.stage != file.stage
    note = f"{json.name}: ZeRO-{json.stage}: one process has nothing to shard" if is_other else ""
    return EngineSetup(json, numerics, note)


def _check_sharding(teacher: TeacherSection, file: EngineJson) -> None:
    """Refuse a teacher that cannot be shared as the recipe says, in a world of any size."""
    if teacher.sharding == "node" and file.stage < 3:
        raise UserError(
            f"teacher.sharding: node needs ZeRO-3, but {file.name} says stage {file.stage}, where "
            "every process holds the whole teacher; allowed with it: world, none"
        )
    offload = file.fields["zero_optimization"].get("offload_param") or {}
    if teacher.sharding == "none" and offload.get("device", "none") != "none":
        raise UserError(
            "teacher.sharding: none keeps the whole teacher on every device, but "
            f"{file.name} offloads parameters (offload_param); allowed with it: world, node"
        )


def adamw(section: OptimSection, *, scale: float = 1.0) -> AdamW:
    """Build the optimizer settings of a role."""
    return AdamW(
        lr=section.lr * scale,
        betas=section.betas,
        eps=section.eps,
        weight_decay=section.weight_decay,
    )


def learning_rate(section: OptimSection, total: int, *, scale: float = 1.0) -> LearningRate:
    """Build the learning-rate schedule of a role with ``total`` updates."""
    return LearningRate(
        peak=section.lr * scale,
        total=total,
        warmup_steps=section.warmup_steps,
        decay_fraction=section.decay_fraction,
    )
