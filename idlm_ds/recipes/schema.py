"""The two kinds of recipe."""

from dataclasses import dataclass

from idlm_ds.recipes.checkpoint import CheckpointSection
from idlm_ds.recipes.errors import RecipeError
from idlm_ds.recipes.evaluation import EvalSection
from idlm_ds.recipes.sections import (
    DataSection,
    DistillObjective,
    DistillTrain,
    EmaSection,
    LogSection,
    ModelSection,
    OptimSection,
    PretrainObjective,
    PretrainTrain,
    ProcessSection,
    Section,
    TeacherSection,
)
from idlm_ds.recipes.student import StudentSection
from idlm_ds.registry.methods import METHODS


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
    student: StudentSection = StudentSection()
    """What is made of it."""
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
    """What the run logs."""
    checkpoint: CheckpointSection = CheckpointSection()
    """When the run is saved."""

    def __post_init__(self) -> None:
        self._require_text("name")
        self._require_at_least(0, "seed")
        size, method = self.student.latent.size, METHODS[self.objective.name]
        if size and "latent" not in method.takes:
            raise RecipeError(
                f"student.latent.size: must be 0 with objective.name {method.name}, got {size}"
            )
        self.eval.check_length(self.data.length)
        if self.objective.is_in_rounds:
            self.ema.refuse_fake(f"with objective.name {method.name}")


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
    """What the run logs."""
    checkpoint: CheckpointSection = CheckpointSection()
    """When the run is saved."""

    def __post_init__(self) -> None:
        self._require_text("name")
        self._require_at_least(0, "seed")
        self.ema.refuse_fake("in pretraining")


Recipe = DistillRecipe | PretrainRecipe
