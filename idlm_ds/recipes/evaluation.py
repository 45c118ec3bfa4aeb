"""The section ``eval`` of a distillation recipe."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from idlm_ds.recipes.sections import Section
from idlm_ds.registry.samplers import PRECISIONS, REMASKINGS, SAMPLERS, TAILS
from idlm_ds.registry.table import OneOf, default

Moment = Literal["end", "never"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSection(Section):
    """How samples are drawn and judged."""

    prefix: ClassVar[str] = "eval"
    when: Moment = "end"
    """Whether the run ends with its report, or with the saved student: end or never. A run that has
    ended is measured later with --resume auto eval.when=end."""
    num_samples: int = 1024
    """Samples per measurement; at least 2."""
    steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Sampling steps the student is measured at; each at least 1, increasing."""
    teacher_steps: tuple[int, ...] = (4, 8, 16, 32, 64, 256, 1024)
    """Sampling steps the teacher is measured at; each at least 1, increasing."""
    matched_steps: tuple[int, ...] = (8, 1024)
    """Steps of the control: the teacher at the temperature that gives it the student's entropy."""
    judge: str = "assets:judge"
    """Model that scores samples: a folder, or assets:NAME; not read where eval.when is never."""
    precision: Annotated[str, OneOf(PRECISIONS)] = default(PRECISIONS)
    """Arithmetic of draws; float32 repeats the bias of published samplers."""
    batch: int = 64
    """Samples drawn or scored at once; at least 1."""
    sampler: Annotated[str, OneOf(SAMPLERS)] = default(SAMPLERS)
    """How the reverse process is walked; analytic and euler are SEDD's, blockwise is LLaDA's."""
    block: int | None = None
    """Tokens that blockwise fills together, a divisor of data.length; null = all of them. Counts
    of steps must be multiples of the number of blocks."""
    remasking: Annotated[str, OneOf(REMASKINGS)] = default(REMASKINGS)
    """Which candidates a step of blockwise throws away: the least certain ones, or any."""
    tail: Annotated[str, OneOf(TAILS)] = default(TAILS)
    """How the last noise goes: drawn, by the likeliest token, or not at all."""
    nucleus: float = 1.0
    """Mass of the likeliest tokens kept of each answer; in (0, 1]; 1 = all."""
    seed: int = 1234
    """Seed of the evaluation's own draws; 0 or more."""

    def __post_init__(self) -> None:
        self._require_at_least(2, "num_samples")
        for field in ("steps", "teacher_steps", "matched_steps"):
            steps = getattr(self, field)
            rising = all(low < high for low, high in zip((0, *steps), steps, strict=False))
            self._require(field, rising, "increasing counts, each at least 1")
        self._require("steps", bool(self.steps), "one count or more")
        self._require_text("judge")
        self._require_at_least(1, "batch")
        self._require_at_least(0, "seed")
        self._require("nucleus", 0 < self.nucleus <= 1, "in (0, 1]")
        self._require("block", self.block is None or self.block >= 1, "null, or at least 1")
        self._check_sampler()

    @property
    def is_measured(self) -> bool:
        """Whether the run ends with its report."""
        return self.when == "end"

    @property
    def is_blockwise(self) -> bool:
        """Whether samples are filled in block by block."""
        return not SAMPLERS[self.sampler].is_chain

    def _check_sampler(self) -> None:
        """Refuse settings that mean nothing to the sampler."""
        fixed: dict[str, object] = {"block": None, "remasking": default(REMASKINGS)}
        if self.is_blockwise:
            fixed = {"precision": default(PRECISIONS), "tail": default(TAILS), "nucleus": 1.0}
        for field, value in fixed.items():
            shown = "null" if value is None else value
            rule = f"{shown} with eval.sampler {self.sampler}"
            self._require(field, getattr(self, field) == value, rule)
        if not SAMPLERS[self.sampler].takes_truncation:
            is_exact = self.precision == default(PRECISIONS)
            plain = is_exact and self.nucleus == 1 and not self.matched_steps
            needs = f"{default(SAMPLERS)} with precision float32, a nucleus or matched_steps"
            self._require("sampler", plain, needs)

    def check_length(self, length: int) -> None:
        """Check that sequences of ``length`` tokens are whole blocks, and steps fit into them.

        Raises:
            RecipeError: They do not.
        """
        if not self.is_blockwise:
            return
        block = self.block or length
        self._require("block", length % block == 0, f"a divisor of data.length, {length}")
        count = length // block
        for field in ("steps", "teacher_steps", "matched_steps"):
            fits = all(steps % count == 0 for steps in getattr(self, field))
            rule = f"multiples of {count}, the blocks of {block} tokens in data.length {length}"
            self._require(field, fits, rule)
