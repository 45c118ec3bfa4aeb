"""Samples from a saved network, on one device and without DeepSpeed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from idlm_ds.build.judges import load_judge
from idlm_ds.build.saved_model import open_model
from idlm_ds.console import say
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from idlm_ds.evaluation.samples_file import write_samples
from idlm_ds.metrics.accumulate import PerplexityAccumulator
from idlm_ds.metrics.entropy import unigram_entropy
from idlm_ds.noise import Noise
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Denoiser, Process
from idlm_ds.provenance import git_commit
from idlm_ds.samplers.batched import join, sample_batched
from idlm_ds.samplers.blockwise import check_blockwise, sample_blockwise
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.samplers.reverse import Sampled

SHOWN = 4
QUIET = ("commit", "prompt")
"""What is written beside samples, but not printed."""

ONLY_BLOCKWISE = ("prompt", "block", "remasking", "guidance")
"""Options of that sampler; None where not given."""

ONLY_CHAINS = {"tail": "ancestral", "precision": "float64", "nucleus": 1.0}
"""Options of the other samplers, and what they are where not given."""


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
    process: str | None = None
    """Family, where the checkpoint tells none."""

    tokenizer: str | None = None
    """None for the checkpoint's own."""

    prompt: str | None = None
    block: int | None = None
    remasking: str | None = None
    guidance: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "num_samples", "batch", "length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')}: must be at least 1, got {value}")
        if not self.temperature > 0 and not self.is_blockwise:
            raise UserError(f"--temperature: must be above 0, got {self.temperature}")
        if not 0 < self.nucleus <= 1:
            raise UserError(f"--nucleus: must be in (0, 1], got {self.nucleus}")
        absent = ONLY_CHAINS if self.is_blockwise else dict.fromkeys(ONLY_BLOCKWISE)
        for name, value in absent.items():
            if getattr(self, name) != value:
                raise UserError(f"--{name}: means nothing to --sampler {self.sampler}")

    @property
    def is_blockwise(self) -> bool:
        """Whether prompts are continued, block by block."""
        return self.sampler == "blockwise"

    @property
    def chain(self) -> SamplerConfig:
        """How each sample is drawn.

        Raises:
            UserError: Two options exclude each other.
        """
        names = ("steps", "sampler", "tail", "precision", "temperature", "nucleus")
        try:
            return SamplerConfig(**{name: getattr(self, name) for name in names})
        except ValueError as error:
            raise UserError(f"--{error}") from error


@dataclass(frozen=True, slots=True)
class Plan:
    """A way to draw that has been found to fit the model."""

    settings: dict[str, Any]
    """What is written beside the samples."""

    draw: Callable[[Denoiser, torch.device], Sampled]


def plan_chain(options: SampleOptions, process: Process, length: int) -> Plan:
    """Walk down from noise.

    Raises:
        UserError: The family has no such sampler, or two options exclude each other.
    """
    chain = options.chain
    try:
        chain.reverse_step(process)
    except ValueError as error:
        raise UserError(f"--{error}") from error

    def draw(network: Denoiser, device: torch.device) -> Sampled:
        return sample_batched(
            process,
            network,
            range(options.num_samples),
            chain,
            length=length,
            seed=options.seed,
            stream="sample",
            batch=options.batch,
            device=device,
        )

    settings = {
        "sampler": chain.label,
        "precision": chain.precision,
        "temperature": chain.temperature,
    }
    return Plan(settings, draw)


def plan_blockwise(
    options: SampleOptions, process: Process, trained_length: int, tokenizer: Tokenizer
) -> Plan:
    """Continue a prompt, by default by as many whole blocks as fit in a training sequence.

    Texts begin with the prompt, and so do the sequences whose entropy is measured.

    Raises:
        UserError: The family masks no tokens, or lengths do not divide.
    """
    if not isinstance(process, Absorbing):
        raise UserError("--sampler: blockwise needs a masked family; use ancestral")
    prompt = tokenizer.encode([options.prompt or ""])[0]
    room = trained_length - len(prompt)
    length = options.length or room - room % max(options.block or 1, 1)
    if length < 1:
        raise UserError(
            f"--prompt: {len(prompt)} tokens leave no room for a block in the {trained_length} of "
            "a training sequence; pass a shorter prompt, or --length"
        )
    settings: dict[str, Any] = {
        "block": length if options.block is None else options.block,
        "temperature": options.temperature,
        "remasking": options.remasking or "low_confidence",
        "guidance": options.guidance or 0.0,
    }
    arguments = settings | {"length": length, "steps": options.steps}
    try:
        check_blockwise(process, len(prompt), **arguments)
    except ValueError as error:
        raise UserError(f"--{error}") from error

    def draw(network: Denoiser, device: torch.device) -> Sampled:
        parts = []
        for first in range(0, options.num_samples, options.batch):
            samples = range(first, min(first + options.batch, options.num_samples))
            noise = Noise.of_samples(options.seed, "sample", samples=samples, device=device)
            given = torch.tensor([prompt] * len(samples), dtype=torch.long, device=device)
            parts.append(sample_blockwise(process, network, given, noise=noise, **arguments))
        return join(parts)

    told = {"sampler": "blockwise", "precision": "float64", "prompt": options.prompt or ""}
    return Plan(told | settings, draw)


def run_sample(options: SampleOptions) -> None:
    """Draw, print and, where asked, score and write samples.

    Raises:
        UserError: The checkpoint or the judge cannot be used.
    """
    opened = open_model(
        options.checkpoint,
        process=options.process,
        tokenizer=options.tokenizer,
        length=options.length,
    )
    model, process, tokenizer = opened.model, opened.process, opened.tokenizer
    if options.is_blockwise:
        plan = plan_blockwise(options, process, model.about.length or opened.length, tokenizer)
    else:
        plan = plan_chain(options, process, opened.length)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = opened.load(device)

    began = time.perf_counter()
    sampled = plan.draw(network, device)
    seconds = time.perf_counter() - began
    texts = tokenizer.decode(sampled.tokens.tolist())
    entropy = unigram_entropy(sampled.tokens).mean().item()
    provenance = {
        "checkpoint": str(model.path),
        "revision": model.revision,
        "steps": options.steps,
        "nfe": sampled.evaluations.double().mean().item(),
        **plan.settings,
        "seed": options.seed,
        "num_samples": options.num_samples,
        "seconds": round(seconds, 3),
        "commit": git_commit(),
    }
    for text in texts[:SHOWN]:
        say(f"| {' '.join(text.split())}")
    figures = ", ".join(
        f"{k} {v}" for k, v in provenance.items() if k not in QUIET and v is not None
    )
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
