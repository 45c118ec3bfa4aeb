"""How well a saved model predicts text: nats, bits and perplexity of files, one row each."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from idlm_ds.build.locate import locate
from idlm_ds.build.saved_model import OpenModel, open_model
from idlm_ds.console import say
from idlm_ds.data.corpus import Document, read_corpus, split_documents
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.errors import UserError
from idlm_ds.evaluation.table import to_text, write_results
from idlm_ds.metrics.accumulate import PerplexityAccumulator
from idlm_ds.metrics.likelihood import PUBLISHED_T_MIN, Likelihood, measure_likelihood
from idlm_ds.objectives.pretrain import Nelbo
from idlm_ds.provenance import describe_machine

COLUMNS = {
    "model": "model",
    "text": "text",
    "windows": "windows",
    "length": "tokens each",
    "draws": "times each",
    "seed": "seed",
    "nats": "NLL (nats/token)",
    "bits": "bits/token",
    "ppl": "perplexity",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LikelihoodOptions:
    """What to measure, and how precisely."""

    checkpoints: Sequence[str]
    texts: Sequence[str]
    heldout_every: int | None
    """Measure on what a recipe with this ``data.heldout_every`` holds out; None for all text."""

    windows: int
    draws: int
    seed: int
    length: int | None
    batch: int
    with_eos: bool
    """Whether an end-of-text token follows each document."""

    process: str | None
    tokenizer: str | None
    output: Path

    def __post_init__(self) -> None:
        for name, value in {
            "--windows": self.windows,
            "--draws": self.draws,
            "--batch-size": self.batch,
            "--length": 1 if self.length is None else self.length,
        }.items():
            if value < 1:
                raise UserError(f"{name}: must be at least 1, got {value}")


def run_likelihood(options: LikelihoodOptions, world: World) -> None:
    """Measure every model on every text.

    Collective: every rank must call; figures do not depend on how many there are.

    Raises:
        UserError: A file, a name or a combination of options cannot be used.
    """
    rows = []
    for spec in options.checkpoints:
        opened = open_model(
            spec, process=options.process, tokenizer=options.tokenizer, length=options.length
        )
        rows += _measure(opened, options, world)
    if world.is_first:
        write_results(options.output, rows, describe_machine(world.device.type, world.size))
        say(to_text(rows, COLUMNS))
        say(f"upper bounds by the NELBO, float64 sums; written to {options.output}")


def _measure(opened: OpenModel, options: LikelihoodOptions, world: World) -> list[dict[str, Any]]:
    words, length = opened.tokenizer, opened.length
    texts = {spec: _windows(spec, words, length, options) for spec in options.texts}
    network = opened.load(world.device)
    rows = []
    for spec, windows in tqdm(texts.items(), unit="text", disable=not world.is_first):
        seen = measure_likelihood(
            Nelbo(opened.process),
            network,
            torch.from_numpy(windows),
            batch=options.batch,
            draws=options.draws,
            seed=options.seed,
            rows=range(world.rank, len(windows), world.size),
            device=world.device,
        )
        found = Likelihood.of(PerplexityAccumulator.from_sums(world.sum(seen.sums).cpu()))
        rows.append(
            {
                "model": opened.model.spec,
                "source": opened.model.fingerprint,
                "family": opened.family.name,
                "text": spec,
                "text_hash": hashlib.sha256(windows.tobytes()).hexdigest()[:16],
                "heldout_every": options.heldout_every,
                "with_eos": options.with_eos,
                "windows": len(windows),
                "length": length,
                "draws": options.draws,
                "seed": options.seed,
                "t_min": PUBLISHED_T_MIN,
                "tokenizer": words.fingerprint[:16],
                **_told("nats", found.nats.value, found.nats.se),
                **_told("bits", found.bits.value, found.bits.se),
                **_told("ppl", found.ppl.value, found.ppl.se),
            }
        )
    return rows


def _told(name: str, value: float, error: float) -> dict[str, float | None]:
    return {name: value, f"{name}_se": None if error != error else error}


def _windows(
    spec: str, tokenizer: Tokenizer, length: int, options: LikelihoodOptions
) -> npt.NDArray[np.int64]:
    """Whole windows of a text, spread evenly where there are more than asked for.

    Raises:
        UserError: It cannot be read, or is shorter than one window.
    """
    documents: Sequence[Document] = read_corpus(locate(spec, "--text"))
    if options.heldout_every is not None:
        _, documents = split_documents(documents, heldout_every=options.heldout_every)
    end = [tokenizer.eos_id] if options.with_eos else []
    ids = [id_ for row in tokenizer.encode([d.text for d in documents]) for id_ in (*row, *end)]
    available = len(ids) // length
    if available < 1:
        raise UserError(f"--text: {spec} has {len(ids)} tokens, fewer than a window of {length}")
    count = min(options.windows, available)
    cut = np.asarray(ids[: available * length], dtype=np.int64).reshape(available, length)
    return cut[np.arange(count) * available // count]
