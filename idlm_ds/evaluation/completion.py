"""A saved model that continues prompts and fills gaps."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, final

import torch

from idlm_ds.build.saved_model import OpenModel
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from idlm_ds.evaluation.grid import Grid, find_source
from idlm_ds.noise import Noise
from idlm_ds.processes.base import Denoiser, Process
from idlm_ds.samplers.batched import join
from idlm_ds.samplers.clamped import Given, sample_clamped
from idlm_ds.samplers.config import Precision, SamplerConfig
from idlm_ds.samplers.reverse import Sampled

Row = Sequence[int | None]
"""Tokens of a sequence; None marks one to be drawn."""


@final
@dataclass(frozen=True, slots=True)
class Completion:
    """Text that a model drew after a prompt."""

    text: str
    """Up to the end of text, exclusive."""

    tokens: int
    nfe: int
    """Network calls of this sequence."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Cost of some completions."""

    count: int
    tokens: int
    """Tokens of the returned texts; those drawn after their end do not count."""

    nfe: int
    """Network calls, summed over the sequences."""

    seconds: float

    def __add__(self, other: "Speed") -> "Speed":
        """Return the cost of both, run one after the other."""
        return Speed(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    def figures(self) -> dict[str, float | None]:
        """Return calls a sequence, tokens a call and tokens a second; None if nothing was drawn."""
        return {
            "nfe": self.nfe / self.count if self.count else None,
            "tokens_per_forward": self.tokens / self.nfe if self.nfe else None,
            "tokens_per_s": self.tokens / self.seconds if self.seconds else None,
        }

    def __str__(self) -> str:
        labels = {"nfe": "NFE", "tokens_per_forward": "tokens/forward", "tokens_per_s": "tokens/s"}
        figures = [f"{labels[k]} {v:.3g}" for k, v in self.figures().items() if v is not None]
        return ", ".join([f"{self.count} sequences", *figures])


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Completer:
    """A model and its sampler settings.

    Every sequence is drawn at full length, since a network is trained on one length; a text ends
    before the first end-of-text token after its prompt.
    """

    process: Process
    network: Denoiser
    tokenizer: Tokenizer
    config: SamplerConfig
    length: int
    """Positions of a sequence."""

    bos: bool
    """Whether a sequence begins with the token that opens a row of training data."""

    seed: int
    device: torch.device

    @classmethod
    def of(
        cls,
        opened: OpenModel,
        network: Denoiser,
        config: SamplerConfig,
        *,
        bos: bool,
        seed: int,
        device: torch.device,
    ) -> "Completer":
        """Build from a model whose network is on a device."""
        return cls(
            process=opened.process,
            network=network,
            tokenizer=opened.tokenizer,
            config=config,
            length=opened.length,
            bos=bos,
            seed=seed,
            device=device,
        )

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a sequence that begins with a text."""
        return [self.tokenizer.frame[0]] * self.bos + self.tokenizer.encode([text])[0]

    def fill(
        self, rows: Sequence[Row], samples: Sequence[int], *, stream: str, batch: int
    ) -> Sampled:
        """Draw the unknown tokens of each row.

        Args:
            rows: Of any length up to ``length``; positions after their end are drawn too.
            samples: One number for each, which names its random stream.
            stream: Purpose of the draws; part of each random stream's name.
            batch: Rows at a time; affects speed only.

        Raises:
            UserError: A row contains the mask token.
        """
        full = [[*row, *[None] * (self.length - len(row))] for row in rows]
        parts = []
        for first in range(0, len(rows), batch):
            part = slice(first, first + batch)
            noise = Noise.of_samples(self.seed, stream, samples=samples[part], device=self.device)
            given = Given.of(full[part], device=self.device)
            try:
                sampled = sample_clamped(
                    self.process, self.network, given, self.config, noise=noise
                )
            except ValueError as error:
                raise UserError(f"{stream}: a text holds the mask: {error}") from error
            parts.append(sampled)
        return join(parts)

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        samples: Sequence[int],
        *,
        stream: str,
        batch: int,
        most: Sequence[int | None] | None = None,
    ) -> list[Completion]:
        """Continue prompts.

        Args:
            prompts: Tokens; see ``encode``.
            samples: See ``fill``.
            stream: See ``fill``.
            batch: See ``fill``.
            most: Number of tokens to keep of each; None keeps all.
        """
        sampled = self.fill(prompts, samples, stream=stream, batch=batch)
        drawn = zip(
            prompts,
            most or [None] * len(prompts),
            sampled.tokens.tolist(),
            sampled.evaluations.tolist(),
            strict=True,
        )
        completions = []
        for prompt, limit, tokens, nfe in drawn:
            kept = self.until_end(tokens[len(prompt) :])[:limit]
            text = self.decode_behind(tokens[: len(prompt)], kept)
            completions.append(Completion(text, len(kept), nfe))
        return completions

    def decode_behind(self, before: Sequence[int], tokens: Sequence[int]) -> str:
        """Decode tokens in their context; decoded alone they may lose their leading space."""
        head, whole = self.tokenizer.decode([[*before], [*before, *tokens]])
        return whole[len(head) :] if whole.startswith(head) else self.tokenizer.decode([tokens])[0]

    def until_end(self, tokens: Sequence[int]) -> list[int]:
        """Cut before the first token that ends or pads a text."""
        tokenizer = self.tokenizer
        ends = {tokenizer.eos_id, tokenizer.pad_id, tokenizer.frame[1]}
        stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
        return list(tokens[:stop])


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """Sampler settings as typed by the user."""

    steps: int = 8
    sampler: Literal["ancestral", "greedy", "analytic", "euler"] = "ancestral"
    precision: Precision = "float64"
    temperature: float = 1.0
    nucleus: float = 1.0
    seed: int = 0
    length: int | None = None
    """Positions of a sequence; None for as many as in training."""

    bos: bool = False
    """See ``Completer``."""

    batch: int = 32
    process: str | None = None
    tokenizer: str | None = None

    def grid(self, checkpoint: str) -> Grid:
        """Return the settings as a grid of one cell.

        Raises:
            UserError: A value is out of range.
        """
        return Grid(
            checkpoints=[checkpoint],
            steps=[self.steps],
            samplers=[self.sampler],
            precisions=[self.precision],
            temperatures=[self.temperature],
            nuclei=[self.nucleus],
            seeds=[self.seed],
            num_samples=1,
            length=self.length,
            batch=self.batch,
            process=self.process,
            tokenizer=self.tokenizer,
        )


def open_completer(checkpoint: str, draws: Draws, device: torch.device) -> Completer:
    """Load a checkpoint.

    Raises:
        UserError: It cannot be used, or has no such sampler.
    """
    source = find_source(checkpoint, draws.grid(checkpoint))
    (config,) = source.cells.values()
    network = source.opened.load(device)
    return Completer.of(
        source.opened, network, config, bos=draws.bos, seed=draws.seed, device=device
    )
