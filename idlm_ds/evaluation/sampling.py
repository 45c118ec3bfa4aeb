"""Samples from a saved network, on one device and without DeepSpeed."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch

from idlm_ds.build.judges import load_judge
from idlm_ds.build.saved_model import OpenModel
from idlm_ds.console import say
from idlm_ds.errors import UserError
from idlm_ds.evaluation.draw import SingleProcess, draw_set
from idlm_ds.evaluation.options import SampleOptions
from idlm_ds.evaluation.row import judge_columns
from idlm_ds.evaluation.samples_file import write_samples
from idlm_ds.evaluation.score import score_set
from idlm_ds.evaluation.sources import open_checkpoint, sampler_config, sampler_of
from idlm_ds.evaluation.table import value_with_error
from idlm_ds.metrics.entropy import unigram_entropy
from idlm_ds.noise import Noise
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Denoiser
from idlm_ds.provenance import git_commit
from idlm_ds.registry.samplers import FLOAT64
from idlm_ds.samplers.batched import sample_batched
from idlm_ds.samplers.blockwise import check_blockwise, sample_blockwise
from idlm_ds.samplers.reverse import Sampled

STREAM = "sample"

SHOWN = 4
QUIET = ("commit", "prompt")
"""Provenance that is written, but not printed."""


PlannedDraw: TypeAlias = tuple[
    Callable[[Denoiser, torch.device, Sequence[int]], Sampled], Mapping[str, Any]
]
"""What draws the samples with some indices, checked against the model, and its provenance."""


def _plan_chain(options: SampleOptions, opened: OpenModel) -> PlannedDraw:
    """Plan to walk down from noise."""
    config = sampler_of(sampler_config(options), opened)

    def draw(network: Denoiser, device: torch.device, indices: Sequence[int]) -> Sampled:
        return sample_batched(
            opened.process,
            network,
            indices,
            config,
            length=opened.length,
            seed=options.seed,
            stream=STREAM,
            batch=options.batch,
            device=device,
        )

    settings = {
        "sampler": config.label,
        "precision": config.precision,
        "temperature": config.temperature,
        "latent": config.latent or None,
    }
    return draw, settings


def _plan_blockwise(options: SampleOptions, opened: OpenModel) -> PlannedDraw:
    """Plan to continue a prompt, by default by as many whole blocks as fit in a training sequence.

    Texts begin with the prompt, and so do the sequences whose entropy is measured.
    """
    process, given = opened.process, options.blockwise
    if not isinstance(process, Absorbing):
        raise UserError("--sampler: blockwise needs a masked family; use ancestral")
    prompt = opened.tokenizer.encode([given.prompt or ""])[0]
    trained_length = opened.model.about.length or opened.length
    room = trained_length - len(prompt)
    length = options.length or room - room % max(given.block or 1, 1)
    if length < 1:
        raise UserError(
            f"--prompt: {len(prompt)} tokens leave no room for a block in the {trained_length} of "
            "a training sequence; pass a shorter prompt, or --length"
        )
    settings: dict[str, Any] = {
        "block": length if given.block is None else given.block,
        "temperature": options.temperature,
        "remasking": given.remasking or "low_confidence",
        "guidance": given.guidance or 0.0,
    }
    arguments = settings | {"length": length, "steps": options.steps}
    try:
        check_blockwise(process, len(prompt), **arguments)
    except ValueError as error:
        raise UserError(f"--{error}") from error

    def draw(network: Denoiser, device: torch.device, indices: Sequence[int]) -> Sampled:
        noise = Noise.of_samples(options.seed, STREAM, samples=indices, device=device)
        prompts = torch.tensor([prompt] * len(indices), dtype=torch.long, device=device)
        return sample_blockwise(
            process, network, prompts, noise=noise, latent=opened.latent, **arguments
        )

    origin = {"sampler": options.sampler, "precision": FLOAT64, "prompt": given.prompt or ""}
    return draw, origin | settings | {"latent": opened.latent or None}


def run_sample(options: SampleOptions) -> None:
    """Draw and print samples; score and write them where there is an output.

    Raises:
        UserError: The checkpoint, the judge or an option cannot be used.
    """
    opened = open_checkpoint(options.checkpoint, options)
    plan = _plan_blockwise if options.is_blockwise else _plan_chain
    draw, settings = plan(options, opened)
    ranks = SingleProcess.on_any_device()
    draw_batch = partial(draw, opened.load(ranks.device), ranks.device)
    drawn = draw_set(draw_batch, options.num_samples, batch=options.batch, ranks=ranks)
    texts = opened.tokenizer.decode(drawn.tokens.tolist())
    entropy = unigram_entropy(drawn.tokens).mean().item()
    provenance = {
        "checkpoint": str(opened.model.path),
        "revision": opened.model.revision,
        "steps": options.steps,
        "nfe": drawn.nfe,
        **settings,
        "seed": options.seed,
        "num_samples": options.num_samples,
        "seconds": round(drawn.seconds, 3),
        "commit": git_commit(),
    }
    for text in texts[:SHOWN]:
        say(f"| {' '.join(text.split())}")
    figures = ", ".join(
        f"{k} {v}" for k, v in provenance.items() if k not in QUIET and v is not None
    )
    say(f"entropy {entropy:.3f} nats; {figures}")
    if options.output is None:
        return
    judge = load_judge(options.judge, ranks.device, "--judge")
    scores = score_set(judge, texts, batch=options.batch, ranks=ranks)
    columns = judge_columns(judge, "published", [scores])
    gen_ppl, error = columns["gen_ppl"], columns["gen_ppl_se"]
    provenance |= {"judge": judge.name, "gen_ppl_se": error}
    write_samples(options.output, texts, gen_ppl=gen_ppl, entropy=entropy, provenance=provenance)
    shown = value_with_error(gen_ppl, error)
    say(f"GenPPL {shown} under {judge.name}; written to {options.output}")
