"""Published figures measured again, and whether both agree."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from idlm_ds.build.networks import known_network
from idlm_ds.build.tokenizers import load_tokenizer
from idlm_ds.checkpoints.model_folder import NetworkCard, write_network
from idlm_ds.console import say
from idlm_ds.engine.dist import World
from idlm_ds.engine.weights import fill_weights
from idlm_ds.errors import UserError
from idlm_ds.evaluation.genppl import evaluate, load_judges
from idlm_ds.evaluation.options import (
    ChainName,
    ChainOptions,
    EvaluationOptions,
    FamilyName,
    Judging,
    ModelOptions,
    PrecisionName,
    TableOptions,
    TailName,
)
from idlm_ds.evaluation.row import Row
from idlm_ds.evaluation.sources import find_source, sampler_config
from idlm_ds.evaluation.table import to_text, write_results
from idlm_ds.models.init import InitialWeights
from idlm_ds.recipes.strict_yaml import read_yaml
from idlm_ds.recipes.typed import build
from idlm_ds.registry.families import sees_time
from idlm_ds.registry.networks import NETWORKS
from idlm_ds.registry.samplers import DRAWN
from idlm_ds.registry.table import default
from idlm_ds.samplers.config import SamplerConfig

STANDARD_DEVIATIONS = 2.0
DEFAULT_PPL, DEFAULT_ENTROPY = 0.05, 0.05
"""Share of GenPPL and nats of entropy that are allowed where no spread was published."""

PUBLISHED = "published checkpoints; a row passes within two standard deviations"
STAND_INS = (
    "STAND-INS: every checkpoint was replaced by a tiny network with random weights. Only "
    "that the list runs was shown; no published figure was checked."
)

STAND_IN_TOKENIZER, STAND_IN_LENGTH = "assets:tokenizer", 16

COLUMNS = {
    "name": "model",
    "version": "v",
    "steps": "steps",
    "sampler": "sampler",
    "precision": "precision",
    "published_gen_ppl": "GenPPL, published",
    "gen_ppl": "measured",
    "published_entropy": "entropy, published",
    "entropy": "measured",
    "verdict": "verdict",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """A line of a published table."""

    name: str
    version: int
    """Of the publication."""

    checkpoint: str
    process: FamilyName
    steps: int
    sampler: ChainName
    tail: TailName = DRAWN
    precision: PrecisionName
    gen_ppl: float
    gen_ppl_std: float | None = None
    entropy: float
    entropy_std: float | None = None
    mauve: float | None = None
    mauve_std: float | None = None

    @property
    def config(self) -> SamplerConfig:
        """How its samples were drawn; see ``sampler_config``."""
        chain = ChainOptions(
            steps=self.steps, sampler=self.sampler, tail=self.tail, precision=self.precision
        )
        return sampler_config(chain)

    def verdict(self, row: Row) -> str:
        """``pass`` where GenPPL and entropy are within two deviations of what was published."""
        ppl_std = self.gen_ppl_std or DEFAULT_PPL * self.gen_ppl / STANDARD_DEVIATIONS
        nats_std = self.entropy_std or DEFAULT_ENTROPY / STANDARD_DEVIATIONS
        if row["gen_ppl"] is None:
            return "fail"
        agrees = [
            abs(row[key] - wanted) <= STANDARD_DEVIATIONS * math.hypot(std, row[f"{key}_se"] or 0.0)
            for key, wanted, std in (
                ("gen_ppl", self.gen_ppl, ppl_std),
                ("entropy", self.entropy, nats_std),
            )
        ]
        return "pass" if all(agrees) else "fail"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTable:
    """A list of rows and what they have in common."""

    length: int
    tokenizer: str
    rows: tuple[PublishedRow, ...]


def read_table(path: Path) -> PublishedTable:
    """Read a table, as strictly as a recipe.

    Raises:
        UserError: It is missing, or not such a table.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--table: cannot read {path}: {error}") from error
    return build(PublishedTable, read_yaml(text, str(path)))


def run_table(table: PublishedTable, options: TableOptions, world: World) -> None:
    """Measure what is reachable, and write and print all rows.

    Collective: every rank must call.

    With ``options.with_stand_ins``, a tiny random network of the same family takes the place of
    every checkpoint. That proves that the list can be run, and says nothing about any figure.

    Raises:
        UserError: The judge or the folder cannot be used.
    """
    common, rows = _common_settings(table, options), list[Row]()
    judges = load_judges(common.judging.judges, world)
    for published in table.rows:
        spec, model = published.checkpoint, replace(common.model, process=published.process)
        if options.with_stand_ins:
            spec = str(_stand_in(published.process, options.output, world))
        try:
            configs = [published.config]
            source = find_source(spec, model, configs, common.seeds, common.num_samples)
        except UserError as error:
            rows.append(_row(published, {}, f"not reachable: {error}"))
            continue
        for measured in evaluate([source], [], judges, common, world):
            verdict = "stand-in" if options.with_stand_ins else published.verdict(measured)
            rows.append(_row(published, measured, verdict))
    if world.is_first:
        what = STAND_INS if options.with_stand_ins else PUBLISHED
        shared = {"what": what, "judges": list(common.judging.judges)}
        write_results(options.output, rows, shared)
        # The reason of a verdict is in the files only.
        shown = [{**row, "verdict": row["verdict"].partition(":")[0]} for row in rows]
        say(to_text(shown, COLUMNS))
        say(what)
        say(f"written to {options.output}")


def _common_settings(table: PublishedTable, options: TableOptions) -> EvaluationOptions:
    """Build the settings of all rows; each adds its family."""
    if options.with_stand_ins:
        model = ModelOptions(tokenizer=STAND_IN_TOKENIZER, length=STAND_IN_LENGTH)
        judges, num_samples = ["assets:judge"], 4
    else:
        model = ModelOptions(tokenizer=table.tokenizer, length=table.length)
        judges, num_samples = list(options.judges), options.num_samples
    return EvaluationOptions(
        seeds=options.seeds,
        num_samples=num_samples,
        batch=options.batch,
        model=model,
        judging=Judging(judges=judges),
        output=options.output,
    )


def _row(published: PublishedRow, measured: Row, verdict: str) -> dict[str, Any]:
    return {
        **measured,
        "name": published.name,
        "version": published.version,
        "checkpoint": published.checkpoint,
        "steps": published.steps,
        "sampler": published.config.label,
        "precision": published.precision,
        "published_gen_ppl": published.gen_ppl,
        "published_gen_ppl_se": published.gen_ppl_std,
        "published_entropy": published.entropy,
        "published_entropy_se": published.entropy_std,
        "published_mauve": published.mauve,
        "published_mauve_se": published.mauve_std,
        "verdict": verdict,
    }


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Draw values large enough that answers depend on the input."""
    del name
    return 0.2 * torch.randn(shape, generator=generator)


def _stand_in(family: str, output: Path, world: World) -> Path:
    folder = output / "stand-ins" / family
    if world.is_first and not (folder / "model.safetensors").exists():
        tokenizer = load_tokenizer(STAND_IN_TOKENIZER, "--tokenizer")
        sizes = {"kind": default(NETWORKS), "hidden": 32, "blocks": 1, "heads": 2, "cond": 16}
        sizes |= {"vocab_size": len(tokenizer) + 1, "time_conditioning": sees_time(family)}
        card = NetworkCard(network=sizes, process={"name": family}, length=STAND_IN_LENGTH)
        network = known_network(card).make()
        fill_weights(network, InitialWeights(_random, seed=0))
        write_network(folder, card, dict(network.named_parameters()))
        tokenizer.save(folder)
    world.barrier()
    return folder
