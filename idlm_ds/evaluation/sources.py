"""What an evaluation is asked for, as cells that can be drawn."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from idlm_ds.build.saved_model import OpenModel, open_model
from idlm_ds.build.tokenizers import load_tokenizer
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from idlm_ds.evaluation.store import Cell, Drawn, read_json
from idlm_ds.metrics.judge import Masking
from idlm_ds.samplers.config import Precision, Sampler, SamplerConfig
from idlm_ds.samplers.reverse import Tail

Metric = Literal["mauve", "gm"]

SAMPLERS: Mapping[str, tuple[Sampler, Tail]] = {
    "ancestral": ("ancestral", "ancestral"),
    "greedy": ("ancestral", "greedy"),
    "analytic": ("analytic", "ancestral"),
    "euler": ("euler", "ancestral"),
}
"""Step and tail, by the names people type."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Models, and the ways to draw from each."""

    checkpoints: Sequence[str]
    steps: Sequence[int]
    samplers: Sequence[str]
    precisions: Sequence[Precision]
    temperatures: Sequence[float]
    nuclei: Sequence[float]
    seeds: Sequence[int]
    num_samples: int
    length: int | None
    batch: int
    process: str | None
    tokenizer: str | None

    def __post_init__(self) -> None:
        at_least_one = {
            "--steps": self.steps,
            "--num-samples": [self.num_samples],
            "--batch-size": [self.batch],
            "--length": [1 if self.length is None else self.length],
        }
        for option, values in at_least_one.items():
            if wrong := [v for v in values if v < 1]:
                raise UserError(f"{option}: must be at least 1, got {wrong[0]}")
        if wrong_t := [t for t in self.temperatures if not t > 0]:
            raise UserError(f"--temperature: must be above 0, got {wrong_t[0]}")
        if wrong_p := [p for p in self.nuclei if not 0 < p <= 1]:
            raise UserError(f"--nucleus: must be in (0, 1], got {wrong_p[0]}")

    @property
    def chains(self) -> Iterator[SamplerConfig]:
        """Every way to draw that was asked for.

        Raises:
            UserError: Two options exclude each other.
        """
        grid = itertools.product(
            self.samplers, self.steps, self.precisions, self.temperatures, self.nuclei
        )
        for name, steps, precision, temperature, nucleus in grid:
            sampler, tail = SAMPLERS[name]
            try:
                yield SamplerConfig(
                    steps=steps,
                    sampler=sampler,
                    tail=tail,
                    precision=precision,
                    temperature=temperature,
                    nucleus=nucleus,
                )
            except ValueError as error:
                raise UserError(f"--{error}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class GenPplOptions(Grid):
    """What to draw, how to judge it, where to keep it."""

    samples: Sequence[Path]
    """Files of text made elsewhere."""

    judges: Sequence[str]
    output: Path
    maskings: Sequence[Masking] = ("published",)
    """Rules of what a judge scores."""

    metrics: Sequence[Metric] = ()
    """Distances from real text."""

    reference: str = "assets:sotu"
    """Real text."""

    heldout_every: int | None = 20
    """Its part that a recipe with this ``data.heldout_every`` holds out; None for all of it."""

    def __post_init__(self) -> None:
        if not self.checkpoints and not self.samples:
            raise UserError("--checkpoint, --samples: name at least one of either")
        Grid.__post_init__(self)


@dataclass(frozen=True, slots=True)
class Source:
    """A model that has been found to fit what is asked of it, and its cells."""

    opened: OpenModel
    cells: dict[Cell, SamplerConfig]


def find_source(spec: str, grid: Grid) -> Source:
    """Open a checkpoint and hold it against what is asked.

    Raises:
        UserError: It cannot be used, or has no such sampler.
    """
    opened = open_model(spec, process=grid.process, tokenizer=grid.tokenizer, length=grid.length)
    cells = {}
    for chain, seed in itertools.product(grid.chains, grid.seeds):
        try:
            chain.reverse_step(opened.process)
        except ValueError as error:
            raise UserError(f"--{error}") from error
        cell = Cell(
            model=spec,
            source=opened.model.fingerprint,
            family=opened.family.name,
            sampler=chain.label,
            steps=chain.steps,
            precision=chain.precision,
            temperature=chain.temperature,
            nucleus=chain.nucleus,
            seed=seed,
            num_samples=grid.num_samples,
            length=opened.length,
            tokenizer=opened.tokenizer.fingerprint[:16],
        )
        cells[cell] = chain
    return Source(opened, cells)


def adopt(path: Path, options: GenPplOptions) -> tuple[Cell, Drawn]:
    """Take in texts made elsewhere; tokens are cut to the length of the shortest text.

    Raises:
        UserError: The file holds no texts, or an empty one.
    """
    texts = read_json(path).get("generated_seqs")
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise UserError(f"--samples: {path} has no list of texts under generated_seqs")
    tokenizer = load_tokenizer(options.tokenizer or "assets:tokenizer", "--tokenizer")
    ids = tokenizer.encode(texts)
    length = min(len(row) for row in ids)
    if length < 1:
        raise UserError(f"--samples: {path} holds a text of no tokens")
    tokens = torch.tensor([row[:length] for row in ids])
    return text_cell(str(path), texts, tokens, tokenizer)


def text_cell(
    name: str, texts: Sequence[str], tokens: torch.Tensor, tokenizer: Tokenizer
) -> tuple[Cell, Drawn]:
    """A cell of text that no sampler here has drawn."""
    cell = Cell(
        model=name,
        source=hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:16],
        family=None,
        sampler=None,
        steps=None,
        precision=None,
        temperature=1.0,
        nucleus=1.0,
        seed=0,
        num_samples=len(texts),
        length=tokens.shape[1],
        tokenizer=tokenizer.fingerprint[:16],
    )
    return cell, Drawn(tokens=tokens, texts=texts, nfe=None, seconds=None, dtypes=[], machine={})
