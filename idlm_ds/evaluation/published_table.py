"""Published figures measured again: what a row says, what was found, whether they agree."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from idlm_ds.build.judges import load_judge
from idlm_ds.build.networks import known_network
from idlm_ds.build.tokenizers import load_tokenizer
from idlm_ds.checkpoints.model_folder import NetworkCard, write_network
from idlm_ds.console import say
from idlm_ds.engine.dist import World
from idlm_ds.errors import UserError
from idlm_ds.evaluation.genppl import evaluate
from idlm_ds.evaluation.grid import GenPplOptions, find_source
from idlm_ds.evaluation.table import Row, to_text, write_results
from idlm_ds.models.init import InitialWeights
from idlm_ds.recipes.strict_yaml import read_yaml
from idlm_ds.recipes.typed import build

STANDARD_DEVIATIONS = 2.0
UNTOLD_PPL, UNTOLD_ENTROPY = 0.05, 0.05
"""Share of GenPPL and nats of entropy that are allowed where no spread was published."""

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
    process: Literal["mdlm", "sedd", "udlm", "duo"]
    steps: int
    sampler: Literal["ancestral", "greedy", "analytic", "euler"]
    precision: Literal["float64", "float32"]
    gen_ppl: float
    gen_ppl_std: float | None = None
    entropy: float
    entropy_std: float | None = None
    mauve: float | None = None
    mauve_std: float | None = None

    def verdict(self, row: Row) -> str:
        """``pass`` where GenPPL and entropy are within two deviations of what was published."""
        ppl_std = self.gen_ppl_std or UNTOLD_PPL * self.gen_ppl / STANDARD_DEVIATIONS
        nats_std = self.entropy_std or UNTOLD_ENTROPY / STANDARD_DEVIATIONS
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


def run_table(
    table: PublishedTable, options: GenPplOptions, world: World, *, with_stand_ins: bool
) -> None:
    """Measure what is reachable, and write and print all rows.

    Collective: every rank must call.

    Args:
        table: What was published.
        options: How to judge and where to keep it; what a row says counts instead of the rest.
        world: The process group.
        with_stand_ins: Put a tiny random network of the same family in the place of every
            checkpoint. That proves that the list can be run, and says nothing about any figure.
    """
    rows: list[Row] = []
    judges = [load_judge(spec, world.device, "--judge") for spec in options.judges]
    for published in table.rows:
        asked = replace(
            options,
            steps=[published.steps],
            samplers=[published.sampler],
            precisions=[published.precision],
            process=published.process,
        )
        spec = published.checkpoint
        if with_stand_ins:
            spec = str(_stand_in(published.process, asked, world))
        try:
            source = find_source(spec, replace(asked, checkpoints=[spec]))
        except UserError as error:
            rows.append(_row(published, None, f"not reachable: {error}"))
            continue
        for measured in evaluate([source], [], judges, asked, world):
            verdict = "stand-in" if with_stand_ins else published.verdict(measured)
            rows.append(_row(published, measured, verdict))
    if world.is_first:
        settings = {"what": _headline(with_stand_ins), "judges": list(options.judges)}
        write_results(options.output, rows, settings)
        say(to_text([_shown(row) for row in rows], COLUMNS))
        say(_headline(with_stand_ins))
        say(f"written to {options.output}")


def _headline(with_stand_ins: bool) -> str:
    if with_stand_ins:
        return (
            "STAND-INS: every checkpoint was replaced by a tiny network with random weights. Only "
            "that the list runs was shown; no published figure was checked."
        )
    return "published checkpoints; a row passes within two standard deviations"


def _row(published: PublishedRow, measured: Row | None, verdict: str) -> dict[str, Any]:
    told = {
        "name": published.name,
        "version": published.version,
        "checkpoint": published.checkpoint,
        "steps": published.steps,
        "sampler": published.sampler,
        "precision": published.precision,
        "published_gen_ppl": published.gen_ppl,
        "published_gen_ppl_se": published.gen_ppl_std,
        "published_entropy": published.entropy,
        "published_entropy_se": published.entropy_std,
        "published_mauve": published.mauve,
        "published_mauve_se": published.mauve_std,
        "verdict": verdict,
    }
    return {**(measured or {}), **told}


def _shown(row: Row) -> Row:
    """A verdict in a word; the reason is in the files."""
    return {**row, "verdict": row["verdict"].partition(":")[0]}


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Unlike a fresh network's, answers that depend on what is asked."""
    del name
    return 0.2 * torch.randn(shape, generator=generator)


def _stand_in(family: str, options: GenPplOptions, world: World) -> Path:
    folder = options.output / "stand-ins" / family
    if world.is_first and not (folder / "model.safetensors").exists():
        tokenizer = load_tokenizer(options.tokenizer or "assets:tokenizer", "--tokenizer")
        sizes = {"kind": "dit", "hidden": 32, "blocks": 1, "heads": 2, "cond": 16}
        sizes |= {"vocab_size": len(tokenizer) + 1, "time_conditioning": family != "mdlm"}
        card = NetworkCard(network=sizes, process={"name": family}, length=options.length or 16)
        network = known_network(card)
        source = InitialWeights(_random, seed=0)
        with torch.device("meta"):
            shapes = {n: tuple(p.shape) for n, p in network.make().named_parameters()}
        weights = {
            name: source.read(name, shape, 0, math.prod(shape)).view(shape)
            for name, shape in shapes.items()
        }
        write_network(folder, card, weights)
        tokenizer.save(folder)
    world.barrier()
    return folder
