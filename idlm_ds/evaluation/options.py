"""Options of the programs that draw and measure; nothing here imports torch.

What several programs take stands in one class, so that a flag has one spelling, one meaning and one
default on every command line.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from idlm_ds.errors import UserError
from idlm_ds.options import ABOVE_0, AT_LEAST_1, SHARE, Options, option
from idlm_ds.recipes.load import RECIPES
from idlm_ds.registry.families import FAMILIES
from idlm_ds.registry.samplers import ANCESTRAL, DRAWN, FLOAT64, PRECISIONS, SAMPLERS, TAILS
from idlm_ds.registry.table import OneOf

FamilyName = Annotated[str, OneOf(FAMILIES)]
SamplerName = Annotated[str, OneOf(SAMPLERS)]
ChainName = Annotated[str, OneOf(SAMPLERS, lambda name: SAMPLERS[name].is_chain)]
TailName = Annotated[str, OneOf(TAILS)]
PrecisionName = Annotated[str, OneOf(PRECISIONS)]

MaskingRule: TypeAlias = Literal["published", "strict"]
Metric: TypeAlias = Literal["mauve", "gm"]

STUDENT_STEPS = (1, 2, 4, 8, 16, 32)
"""Where a student is measured unless the user says otherwise."""

CHECKPOINT = "model folder or file of any layout, hf:OWNER/NAME[@REVISION], or assets:teacher"
SAMPLER = "how the reverse process is walked; all but ancestral need a masked family"
TAIL = "how the last noise goes: drawn, by the likeliest token, or not at all"
PRECISION = "of the draws; float32 repeats the bias of published samplers"
NUCLEUS = "probability mass of the tokens that may be drawn"
BATCH = "sequences at a time; no figure depends on it"
JUDGES = "folders of causal language models, or hf:OWNER/NAME"
BOS = "sequences begin with BOS, as framed training data does"


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """What a checkpoint may leave open."""

    process: FamilyName | None = option(None, "diffusion family, where the checkpoint names none")
    tokenizer: str | None = option(None, "its folder or hub name (default: the checkpoint's)")
    length: int | None = option(
        None, "tokens of a sequence (default: as in training)", rule=AT_LEAST_1
    )


@dataclass(frozen=True, kw_only=True)
class ChainOptions(Options):
    """One way to draw."""

    steps: int = option(8, "reverse steps a sample", rule=AT_LEAST_1)
    sampler: ChainName = option(ANCESTRAL, SAMPLER)
    tail: TailName = option(DRAWN, TAIL)
    precision: PrecisionName = option(FLOAT64, PRECISION)
    temperature: float = option(1.0, "of the scores", rule=ABOVE_0)
    nucleus: float = option(1.0, NUCLEUS, rule=SHARE)


@dataclass(frozen=True, kw_only=True)
class ChainGrid(Options):
    """Ways to draw, in every combination."""

    steps: Sequence[int] = option(STUDENT_STEPS, "reverse steps a sample", rule=AT_LEAST_1)
    samplers: Sequence[ChainName] = option((ANCESTRAL,), SAMPLER, flag="--sampler")
    tails: Sequence[TailName] = option((DRAWN,), TAIL, flag="--tail")
    precisions: Sequence[PrecisionName] = option((FLOAT64,), PRECISION, flag="--precision")
    temperatures: Sequence[float] = option(
        (1.0,), "of the scores", flag="--temperature", rule=ABOVE_0
    )
    nuclei: Sequence[float] = option((1.0,), NUCLEUS, flag="--nucleus", rule=SHARE)


@dataclass(frozen=True, kw_only=True)
class Judging(Options):
    """How sets of samples are judged."""

    judges: Sequence[str] = option(("assets:judge",), JUDGES, flag="--judge")
    maskings: Sequence[MaskingRule] = option(
        ("published",),
        "what is scored after the first end of text: published (all but further ones), strict "
        "(nothing)",
        flag="--masking",
    )
    metrics: Sequence[Metric] = option((), "distances from --reference")
    reference: str = option("assets:sotu", "real text: file or folder")
    heldout_every: int | None = option(
        20, "take what a recipe with this data.heldout_every holds out of the reference"
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(Options):
    """What every evaluation of samples depends on besides models and samplers."""

    seeds: Sequence[int] = option((0,), "each a set of its own", flag="--seed")
    num_samples: int = option(1024, "of each seed", rule=AT_LEAST_1)
    batch: int = option(32, BATCH, flag="--batch-size", rule=AT_LEAST_1)
    model: ModelOptions = ModelOptions()
    judging: Judging = Judging()
    output: Path = option(Path("results"), "folder; what is in it is not computed again")


@dataclass(frozen=True, kw_only=True)
class GenPplOptions(EvaluationOptions):
    """Options of eval_genppl.py."""

    checkpoints: Sequence[str] = option((), f"each a {CHECKPOINT}", flag="--checkpoint")
    samples: Sequence[Path] = option((), "JSON files of text made elsewhere, with generated_seqs")
    grid: ChainGrid = ChainGrid()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.checkpoints and not self.samples:
            raise UserError("--checkpoint, --samples: name at least one of either")


@dataclass(frozen=True, kw_only=True)
class FrontierOptions(EvaluationOptions):
    """Options of frontier.py."""

    teacher: str = option("assets:teacher", "as --checkpoint elsewhere")
    student: str = option(about="as --checkpoint elsewhere")
    teacher_steps: Sequence[int] = option((8, 1024), "as --steps elsewhere", rule=AT_LEAST_1)
    student_steps: Sequence[int] = option(STUDENT_STEPS, "as --steps elsewhere", rule=AT_LEAST_1)
    temperatures: Sequence[float] = option(
        (0.7, 0.8, 0.9, 1.0), "of the scores", flag="--temperature", rule=ABOVE_0
    )
    nuclei: Sequence[float] = option((1.0,), NUCLEUS, flag="--nucleus", rule=SHARE)
    periods: Sequence[int] = option(
        (8, 16, 32), "tokens of a phrase that the control repeats", rule=AT_LEAST_1
    )
    output: Path = option(Path("results/frontier"), "folder; what is in it is not computed again")


@dataclass(frozen=True, kw_only=True)
class TableOptions(Options):
    """Options of reproduce_table1.py."""

    table: Path = option(RECIPES.parent / "table1.yaml", "rows and published figures")
    with_stand_ins: bool = option(
        False, "tiny random networks, short texts, small judge", flag="--stand-ins"
    )
    judges: Sequence[str] = option(("hf:openai-community/gpt2-large",), JUDGES, flag="--judge")
    seeds: Sequence[int] = option((0,), "each a set of its own", flag="--seed")
    num_samples: int = option(512, "of each seed", rule=AT_LEAST_1)
    batch: int = option(32, BATCH, flag="--batch-size", rule=AT_LEAST_1)
    output: Path = option(Path("results/table1"), "folder; what is in it is not computed again")


@dataclass(frozen=True, kw_only=True)
class LikelihoodOptions(Options):
    """Options of eval_likelihood.py."""

    checkpoints: Sequence[str] = option(about=f"each a {CHECKPOINT}", flag="--checkpoint")
    texts: Sequence[str] = option(
        about=".txt, .jsonl or .jsonl.xz files, folders of .txt, or assets:sotu", flag="--text"
    )
    heldout_every: int | None = option(
        None, "take what a recipe with this data.heldout_every holds out of each text"
    )
    windows: int = option(512, "at most, of each text", rule=AT_LEAST_1)
    draws: int = option(8, "times a window is noised", rule=AT_LEAST_1)
    seed: int = option(0, "of the noise")
    with_eos: bool = option(True, "put nothing between documents", flag="--no-eos")
    batch: int = option(32, BATCH, flag="--batch-size", rule=AT_LEAST_1)
    model: ModelOptions = ModelOptions()
    output: Path = option(Path("results/likelihood"), "folder")


@dataclass(frozen=True, kw_only=True)
class AccuracyOptions(Options):
    """Options of eval_accuracy.py."""

    checkpoints: Sequence[str] = option(about=f"each a {CHECKPOINT}", flag="--checkpoint")
    data: Path = option(about="JSON lines with question and answer")
    limit: int | None = option(None, "questions to ask (default: all of the file)", rule=AT_LEAST_1)
    bos: bool = option(False, BOS)
    seeds: Sequence[int] = option((0,), "each asks every question once", flag="--seed")
    batch: int = option(32, BATCH, flag="--batch-size", rule=AT_LEAST_1)
    grid: ChainGrid = ChainGrid()
    model: ModelOptions = ModelOptions()
    output: Path = option(
        Path("results/accuracy"), "folder; what is answered in it is not asked again"
    )


@dataclass(frozen=True, kw_only=True)
class CompletionOptions(ChainOptions, ModelOptions):
    """One way to go on from prompts and to fill gaps."""

    seed: int = option(0, "of the draws")
    bos: bool = option(False, BOS)
    batch: int = option(32, BATCH, flag="--batch-size", rule=AT_LEAST_1)


@dataclass(frozen=True, kw_only=True)
class InfillOptions(CompletionOptions):
    """Options of infill.py."""

    checkpoint: str = option(about=CHECKPOINT)
    texts: Sequence[str] = option(about="with ___ for gaps", flag="--text")
    gap: int = option(4, "tokens of a gap without a number", rule=AT_LEAST_1)
    ends: bool = option(False, "texts are whole: end of text follows")
    num_samples: int = option(1, "of each text", rule=AT_LEAST_1)
    output: Path | None = option(None, "JSON file with texts and what filled them")


@dataclass(frozen=True, kw_only=True)
class BlockwiseOptions(Options):
    """Options of --sampler blockwise."""

    prompt: str | None = option(None, "text that samples begin with (default: none)")
    block: int | None = option(None, "tokens filled together (default: --length)")
    remasking: Literal["low_confidence", "random"] | None = option(
        None, "which candidates a step throws away (default: low_confidence)"
    )
    guidance: float | None = option(
        None, "how far scores move away from those without the prompt (default: 0)"
    )


@dataclass(frozen=True, kw_only=True)
class SampleOptions(ChainOptions, ModelOptions):
    """Options of sample.py."""

    checkpoint: str = option(about=CHECKPOINT)
    sampler: SamplerName = option(ANCESTRAL, SAMPLER)
    temperature: float = option(1.0, "of the scores; blockwise also takes 0: the likeliest token")
    num_samples: int = option(4, "samples to draw", rule=AT_LEAST_1)
    seed: int = option(0, "of the draws")
    batch: int = option(32, BATCH, flag="--batch-size", rule=AT_LEAST_1)
    blockwise: BlockwiseOptions = BlockwiseOptions()
    judge: str = option("assets:judge", "scores what --output gets")
    output: Path | None = option(None, "JSON file with all samples and their scores")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_blockwise:
            self._refuse_unless_default(self, ChainOptions(), "tail", "precision", "nucleus")
            return
        if not self.temperature > 0:
            raise UserError(f"--temperature: must be above 0, got {self.temperature}")
        names = [field.name for field in fields(BlockwiseOptions)]
        self._refuse_unless_default(self.blockwise, BlockwiseOptions(), *names)

    def _refuse_unless_default(self, options: Options, defaults: Options, *names: str) -> None:
        for name in names:
            if getattr(options, name) != getattr(defaults, name):
                raise UserError(f"--{name}: means nothing to --sampler {self.sampler}")

    @property
    def is_blockwise(self) -> bool:
        """Whether prompts are continued, block by block."""
        return not SAMPLERS[self.sampler].is_chain
