"""Samples from a saved network, on one device and without DeepSpeed."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from idlm_ds.checkpoints.model_folder import WEIGHTS, read_card
from idlm_ds.checkpoints.tensors import FileWeights
from idlm_ds.compose.families import make_process, read_family
from idlm_ds.compose.output import git_commit
from idlm_ds.compose.parts import known_network, load_tokenizer, locate
from idlm_ds.compose.report import load_judge
from idlm_ds.engine.weights import fill_weights
from idlm_ds.errors import UserError
from idlm_ds.evals.accumulate import PerplexityAccumulator
from idlm_ds.evals.entropy import unigram_entropy
from idlm_ds.evals.samples import write_samples
from idlm_ds.samplers.chain import Chain
from idlm_ds.samplers.sets import sample_set
from idlm_ds.train.console import say

SHOWN = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleOptions:
    """What to draw and where to put it."""

    checkpoint: str
    steps: int
    num_samples: int
    length: int | None
    sampler: str
    tail: str
    precision: str
    temperature: float
    nucleus: float
    seed: int
    batch: int
    judge: str
    output: Path | None

    def __post_init__(self) -> None:
        for name in ("steps", "num_samples", "batch", "length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')}: must be at least 1, got {value}")
        if not self.temperature > 0:
            raise UserError(f"--temperature: must be above 0, got {self.temperature}")
        if not 0 < self.nucleus <= 1:
            raise UserError(f"--nucleus: must be in (0, 1], got {self.nucleus}")

    @property
    def chain(self) -> Chain:
        """How each sample is drawn.

        Raises:
            UserError: Two options exclude each other.
        """
        names = ("steps", "sampler", "tail", "precision", "temperature", "nucleus")
        try:
            return Chain(**{name: getattr(self, name) for name in names})
        except ValueError as error:
            raise UserError(f"--{error}") from error


def run_sample(options: SampleOptions) -> None:
    """Draw, print and, where asked, score and write samples.

    Raises:
        UserError: The checkpoint or the judge cannot be used.
    """
    chain = options.chain
    folder = locate(options.checkpoint, "--checkpoint")
    card = read_card(folder)
    tokenizer = load_tokenizer(str(folder))
    process = make_process(read_family(card.process, folder), len(tokenizer))
    try:
        chain.move(process)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = known_network(card).make()
    fill_weights(network, FileWeights(folder / WEIGHTS))
    network.to(device).eval().requires_grad_(False)

    began = time.perf_counter()
    sampled = sample_set(
        process,
        network,
        range(options.num_samples),
        chain,
        length=options.length or card.length,
        seed=options.seed,
        stream="sample",
        batch=options.batch,
        device=device,
    )
    seconds = time.perf_counter() - began
    texts = tokenizer.decode(sampled.tokens.tolist())
    entropy = unigram_entropy(sampled.tokens).mean().item()
    provenance = {
        "checkpoint": str(folder),
        "steps": options.steps,
        "nfe": sampled.evaluations.double().mean().item(),
        "sampler": chain.label,
        "precision": chain.precision,
        "temperature": chain.temperature,
        "seed": options.seed,
        "num_samples": options.num_samples,
        "seconds": round(seconds, 3),
        "commit": git_commit(),
    }
    for text in texts[:SHOWN]:
        say(f"| {' '.join(text.split())}")
    figures = ", ".join(f"{k} {v}" for k, v in provenance.items() if k not in ("commit",))
    say(f"entropy {entropy:.3f} nats; {figures}")
    if options.output is not None:
        _score_and_write(options, texts, entropy, provenance, device)


def _score_and_write(
    options: SampleOptions,
    texts: list[str],
    entropy: float,
    provenance: dict[str, object],
    device: torch.device,
) -> None:
    judge = load_judge(options.judge, device)
    scored = PerplexityAccumulator()
    scored.update(*judge.score(texts))
    gen_ppl = scored.compute()
    provenance |= {"judge": judge.name, "gen_ppl_se": gen_ppl.se if len(texts) > 1 else None}
    assert options.output is not None
    try:
        write_samples(
            options.output,
            texts,
            gen_ppl=gen_ppl.value,
            entropy=entropy,
            provenance=provenance,
        )
    except OSError as error:
        raise UserError(f"--output: cannot write {options.output}: {error.strerror}") from error
    say(f"GenPPL {gen_ppl.value:.1f} under {judge.name}; written to {options.output}")
