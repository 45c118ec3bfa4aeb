"""How well saved models predict text: nats, bits and perplexity of files, one row each."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from idlm_ds.build.saved_model import OpenModel
from idlm_ds.console import say
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.errors import UserError
from idlm_ds.evaluation.options import LikelihoodOptions
from idlm_ds.evaluation.row import with_error
from idlm_ds.evaluation.sources import open_checkpoint, read_documents
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


def run_likelihood(options: LikelihoodOptions, world: World) -> None:
    """Measure every model on every text.

    Collective: every rank must call; figures do not depend on how many there are.

    Raises:
        UserError: A file, a name or a combination of options cannot be used.
    """
    rows = []
    for spec in options.checkpoints:
        opened = open_checkpoint(spec, options.model)
        if opened.latent:
            raise UserError(
                f"--checkpoint: {spec} is a student with a latent of {opened.latent}: it is a "
                "mixture, whose likelihood has no bound here"
            )
        rows += _measure(opened, options, world)
    if world.is_first:
        write_results(options.output, rows, describe_machine(world.device.type, world.size))
        say(to_text(rows, COLUMNS))
        say(f"upper bounds by the NELBO, float64 sums; written to {options.output}")


def _measure(opened: OpenModel, options: LikelihoodOptions, world: World) -> list[dict[str, Any]]:
    tokenizer, length = opened.tokenizer, opened.length
    texts = {spec: _windows(spec, tokenizer, length, options) for spec in options.texts}
    network = opened.load(world.device)
    rows = []
    for spec, windows in tqdm(texts.items(), unit="text", disable=not world.is_first):
        local = measure_likelihood(
            Nelbo(opened.process),
            network,
            torch.from_numpy(windows),
            batch=options.batch,
            draws=options.draws,
            seed=options.seed,
            rows=range(world.rank, len(windows), world.size),
            device=world.device,
        )
        likelihood = Likelihood.of(PerplexityAccumulator(world.sum(local.sums).cpu()))
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
                "tokenizer": tokenizer.fingerprint[:16],
                **with_error("nats", likelihood.nats),
                **with_error("bits", likelihood.bits),
                **with_error("ppl", likelihood.ppl),
            }
        )
    return rows


def _windows(
    spec: str, tokenizer: Tokenizer, length: int, options: LikelihoodOptions
) -> npt.NDArray[np.int64]:
    """Cut whole windows of a text, spread evenly where there are more than wanted."""
    documents = read_documents(spec, "--text", options.heldout_every)
    end = [tokenizer.eos_id] if options.with_eos else []
    ids = [id_ for row in tokenizer.encode([d.text for d in documents]) for id_ in (*row, *end)]
    available = len(ids) // length
    if available < 1:
        raise UserError(f"--text: {spec} has {len(ids)} tokens, fewer than a window of {length}")
    count = min(options.windows, available)
    cut = np.asarray(ids[: available * length], dtype=np.int64).reshape(available, length)
    return cut[np.arange(count) * available // count]
