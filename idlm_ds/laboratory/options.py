"""Options of the laboratory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from idlm_ds.options import AT_LEAST_1, Options, option

LanguageName: TypeAlias = Literal["pairs", "copy", "shuffle", "latin", "markov"]
"""Languages by the names users type."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaboratoryOptions(Options):
    """What is trained and measured."""

    language: Sequence[LanguageName] = option(get_args(LanguageName), "languages")
    steps: Sequence[int] = option((1, 2, 4, 8, 16), "steps of the chains", rule=AT_LEAST_1)
    updates: int = option(400, "updates of every student, at least 32", rule=AT_LEAST_1)
    seeds: Sequence[int] = option((0,), "seeds of networks, data and noise")
    draws: int = option(32_768, "runs of a chain with a latent, in blocks of 4096", rule=AT_LEAST_1)
    workers: int = option(2, "processes, of one thread each", rule=AT_LEAST_1)
    output: Path = option(Path("runs/laboratory"), "folder of laboratory.json and laboratory.png")
