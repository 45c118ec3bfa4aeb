"""What a run depends on: the two kinds of recipe, and by name the sections they share."""

from dataclasses import dataclass

from idlm_ds.recipes.errors import RecipeError
from idlm_ds.recipes.networks import ModelSection, ProcessSection, TeacherSection
from idlm_ds.recipes.section import Section
from idlm_ds.recipes.sections import (
    CheckpointSection,
    DataSection,
    DistillObjective,
    DistillTrain,
    EmaSection,
    EvalSection,
    LogSection,
    OptimSection,
    PretrainObjective,
    PretrainTrain,
)

__all__ = [
    "CheckpointSection",
    "DataSection",
    "DistillObjective",
    "DistillRecipe",
    "DistillTrain",
    "EmaSection",
    "EvalSection",
    "LogSection",
    "ModelSection",
    "OptimSection",
    "PretrainObjective",
    "PretrainRecipe",
    "PretrainTrain",
    "ProcessSection",
    "RecipeError",
    "TeacherSection",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillRecipe(Section):
    """A teacher made into a generator of few steps."""

    name: str
    """What the run is called."""
    seed: int = 0
    """Seed of every draw in the run; 0 or more."""
    process: ProcessSection
    """How clean text turns into noise."""
    teacher: TeacherSection
    """The network that is distilled."""
    data: DataSection
    """The text, and how it is cut."""
    train: DistillTrain
    """Length and batch."""
    optim: OptimSection
    """Adam and its learning rate."""
    objective: DistillObjective
    """What student and fake descend."""
    ema: EmaSection = EmaSection()
    """Running averages of student and fake."""
    eval: EvalSection = EvalSection()
    """How samples are drawn and judged."""
    log: LogSection = LogSection()
    """What the run tells of itself."""
    checkpoint: CheckpointSection = CheckpointSection()
    """When the run is saved."""

    def __post_init__(self) -> None:
        self._require_text("name")
        self._require_at_least(0, "seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainRecipe(Section):
    """A network trained from nothing, to be a teacher or a judge."""

    name: str
    """What the run is called."""
    seed: int = 0
    """Seed of every draw in the run; 0 or more."""
    process: ProcessSection
    """How clean text turns into noise."""
    model: ModelSection
    """The network to train."""
    data: DataSection
    """The text, and how it is cut."""
    train: PretrainTrain
    """Length and batch."""
    optim: OptimSection
    """Adam and its learning rate."""
    objective: PretrainObjective
    """What the model descends."""
    ema: EmaSection = EmaSection()
    """Running average of the model."""
    log: LogSection = LogSection()
    """What the run tells of itself."""
    checkpoint: CheckpointSection = CheckpointSection()
    """When the run is saved."""

    def __post_init__(self) -> None:
        self._require_text("name")
        self._require_at_least(0, "seed")
