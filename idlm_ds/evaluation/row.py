"""One line of a report: a model, how it was sampled, and what came out."""

import math
from dataclasses import asdict, dataclass

DISPLAY_NAMES = {
    "held_out": "held-out",
    "teacher": "teacher",
    "teacher_matched": "teacher (matched)",
    "student": "student",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Figures of one set of texts."""

    model: str
    """A key of ``DISPLAY_NAMES``; ``teacher_matched`` is the teacher at the student's entropy."""
    steps: int | None
    """Sampling steps; None for held-out text."""
    nfe: float | None
    """Network calls a sequence, which may differ from steps; None for held-out text."""
    sampler: str
    precision: str
    temperature: float
    gen_ppl: float
    gen_ppl_se: float
    entropy: float
    """Mean unigram entropy, nats."""
    entropy_se: float
    distinct_2: float
    """Share of distinct bigrams over the whole set."""
    seconds: float | None
    """Wall time of sampling the whole set; None where nothing was sampled."""
    num_samples: int
    judge: str
    seed: int

    def __post_init__(self) -> None:
        if self.model not in DISPLAY_NAMES:
            allowed = ", ".join(DISPLAY_NAMES)
            raise ValueError(f"Row.model={self.model!r}; allowed: {allowed}")
        if (self.steps is None) != (self.model == "held_out"):
            raise ValueError(
                f"Row.steps={self.steps} with model={self.model!r}; "
                "allowed: None for held_out, a number for the others"
            )

        if not (math.isfinite(self.gen_ppl) and self.gen_ppl > 0 and math.isfinite(self.entropy)):
            raise ValueError(
                f"Row of {self.model}: gen_ppl={self.gen_ppl}, entropy={self.entropy}; "
                "allowed: finite, and gen_ppl above 0"
            )

    @property
    def display_name(self) -> str:
        """The model's name as people read it."""
        return DISPLAY_NAMES[self.model]

    def to_json(self) -> dict[str, object]:
        """Give the fields as JSON values; a number that is not finite becomes null."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }
