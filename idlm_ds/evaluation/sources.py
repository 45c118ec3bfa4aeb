"""What is evaluated: saved models with the ways to draw from them, and texts made elsewhere."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from idlm_ds.build.locate import locate
from idlm_ds.build.saved_model import OpenModel, open_model
from idlm_ds.build.tokenizers import load_tokenizer
from idlm_ds.data.corpus import Document, read_corpus, split_documents
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from idlm_ds.evaluation.cell import Cell
from idlm_ds.evaluation.draw import SampleSet
from idlm_ds.evaluation.options import ChainGrid, ChainOptions, ModelOptions
from idlm_ds.evaluation.store import read_json
from idlm_ds.recipes.sections import ProcessSection
from idlm_ds.registry.families import FAMILIES
from idlm_ds.samplers.block_config import AnySampler
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.tensor_types import TokenIds


@dataclass(frozen=True, slots=True)
class Source:
    """A saved model, checked against its options, and its cells."""

    opened: OpenModel
    cells: Mapping[Cell, SamplerConfig]


def sampler_config(options: ChainOptions) -> SamplerConfig:
    """Translate options into the settings of a sampler.

    Raises:
        UserError: Two options exclude each other.
    """
    settings = {field.name: getattr(options, field.name) for field in fields(ChainOptions)}
    try:
        return SamplerConfig(**settings)
    except ValueError as error:
        raise UserError(f"--{error}") from error


def sampler_configs(grid: ChainGrid) -> list[SamplerConfig]:
    """All combinations of a grid's values; see ``sampler_config``."""
    values: dict[str, Sequence[Any]] = {
        "sampler": grid.samplers,
        "tail": grid.tails,
        "steps": grid.steps,
        "precision": grid.precisions,
        "temperature": grid.temperatures,
        "nucleus": grid.nuclei,
    }
    return [
        sampler_config(ChainOptions(**dict(zip(values, combination, strict=True))))
        for combination in itertools.product(*values.values())
    ]


def sampler_settings(config: AnySampler) -> dict[str, Any]:
    """Fields of a ``Cell`` that tell how its samples are drawn."""
    names = ("steps", "precision", "temperature", "nucleus")
    shared = {name: getattr(config, name) for name in names}
    return {"sampler": config.label, **shared, "latent": config.latent or None}


def relaxation_of(family: ProcessSection) -> str | None:
    """Return the relaxation of a family that has one; it is that of a model's training."""
    return family.relaxation if "relaxation" in FAMILIES[family.name].settings else None


def open_checkpoint(spec: str, options: ModelOptions) -> OpenModel:
    """Open a checkpoint; see ``open_model``."""
    return open_model(
        spec, process=options.process, tokenizer=options.tokenizer, length=options.length
    )


def find_source(
    spec: str,
    model: ModelOptions,
    configs: Iterable[SamplerConfig],
    seeds: Sequence[int],
    num_samples: int,
) -> Source:
    """Open a checkpoint and check that its family has the samplers.

    Raises:
        UserError: It cannot be used, or has no such sampler.
    """
    opened = open_checkpoint(spec, model)
    cells = {}
    for chain, seed in itertools.product(configs, seeds):
        config = sampler_of(chain, opened)
        cell = Cell(
            model=spec,
            source=opened.model.fingerprint,
            family=opened.family.name,
            **sampler_settings(config),
            relaxation=relaxation_of(opened.family),
            seed=seed,
            num_samples=num_samples,
            length=opened.length,
            tokenizer=opened.tokenizer.fingerprint[:16],
        )
        cells[cell] = config
    return Source(opened, cells)


def sampler_of(config: SamplerConfig, opened: OpenModel) -> SamplerConfig:
    """Give a sampler the latent of a model, and check that the model's family has it.

    Raises:
        UserError: It has not.
    """
    try:
        config.reverse_step(opened.process)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    return replace(config, latent=opened.latent)


def adopt(path: Path, tokenizer_spec: str | None) -> tuple[Cell, SampleSet]:
    """Take in texts made elsewhere; tokens are cut to the length of the shortest text.

    Raises:
        UserError: The file holds no texts, or an empty one.
    """
    texts = read_json(path).get("generated_seqs")
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise UserError(f"--samples: {path} has no list of texts under generated_seqs")
    tokenizer = load_tokenizer(tokenizer_spec or "assets:tokenizer", "--tokenizer")
    ids = tokenizer.encode(texts)
    length = min(len(row) for row in ids)
    if length < 1:
        raise UserError(f"--samples: {path} holds a text of no tokens")
    return text_cell(str(path), texts, torch.tensor([row[:length] for row in ids]), tokenizer)


def read_documents(spec: str, key: str, heldout_every: int | None) -> list[Document]:
    """Read a text, or of it what a recipe with this ``data.heldout_every`` holds out."""
    documents = read_corpus(locate(spec, key))
    if heldout_every is None:
        return documents
    return split_documents(documents, heldout_every=heldout_every)[1]


def token_cell(name: str, tokens: TokenIds, tokenizer: Tokenizer) -> tuple[Cell, SampleSet]:
    """Make a cell of token sequences that no sampler here has drawn."""
    return text_cell(name, tokenizer.decode(tokens.tolist()), tokens, tokenizer)


def text_cell(
    name: str, texts: Sequence[str], tokens: TokenIds, tokenizer: Tokenizer
) -> tuple[Cell, SampleSet]:
    """Make a cell of texts that no sampler here has drawn."""
    cell = Cell(
        model=name,
        source=hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:16],
        family=None,
        sampler=None,
        steps=None,
        precision=None,
        temperature=None,
        nucleus=None,
        seed=0,
        num_samples=len(texts),
        length=tokens.shape[1],
        tokenizer=tokenizer.fingerprint[:16],
    )
    return cell, SampleSet(tokens=tokens, texts=texts, nfe=None, seconds=None, machine={})
