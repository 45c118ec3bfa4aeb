"""A saved model that goes on from prompts and fills gaps."""

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
"""A sequence; None is to be drawn."""


@final
@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote behind the last token it was given."""

    text: str
    """Up to the end of text, without it."""

    tokens: int
    nfe: int
    """Network calls of this sequence."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """What some completions cost."""

    count: int
    tokens: int
    """Of the texts handed back; what was drawn behind their end does not count."""

    nfe: int
    """Network calls of each sequence, added up."""

    seconds: float

    def __add__(self, other: "Speed") -> "Speed":
        """Both together, one after the other."""
        return Speed(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    def figures(self) -> dict[str, float | None]:
        """Calls a sequence, tokens a call and tokens a second; None where nothing was drawn."""
        return {
            "nfe": self.nfe / self.count if self.count else None,
            "tokens_per_forward": self.tokens / self.nfe if self.nfe else None,
            "tokens_per_s": self.tokens / self.seconds if self.seconds else None,
        }

    def __str__(self) -> str:
        told = {"nfe": "NFE", "tokens_per_forward": "tokens/forward", "tokens_per_s": "tokens/s"}
        figures = [f"{told[k]} {v:.3g}" for k, v in self.figures().items() if v is not None]
        return ", ".join([f"{self.count} sequences", *figures])


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Completer:
    """A model, and how it draws.

    Every sequence is drawn at full length, since a network knows sequences of one length: what
    stands behind a short prompt is drawn too, and not shown behind the first end of text.
    """

    process: Process
    network: Denoiser
    tokenizer: Tokenizer
    chain: SamplerConfig
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
        chain: SamplerConfig,
        *,
        bos: bool,
        seed: int,
        device: torch.device,
    ) -> "Completer":
        """Take a model that has been loaded on a device."""
        return cls(
            process=opened.process,
            network=network,
            tokenizer=opened.tokenizer,
            chain=chain,
            length=opened.length,
            bos=bos,
            seed=seed,
            device=device,
        )

    def encode(self, text: str) -> list[int]:
        """Tokens that a sequence begins with if it begins with a text."""
        return [self.tokenizer.frame[0]] * self.bos + self.tokenizer.encode([text])[0]

    def fill(
        self, rows: Sequence[Row], samples: Sequence[int], *, stream: str, batch: int
    ) -> Sampled:
        """Draw what is missing.

        Args:
            rows: Of any length up to ``length``; what is missing behind their end is drawn too.
            samples: One number for each, which names its random stream.
            stream: What they are drawn for.
            batch: Rows at a time; changes nothing but speed.

        Raises:
            UserError: A text spells the mask.
        """
        full = [[*row, *[None] * (self.length - len(row))] for row in rows]
        parts = []
        for first in range(0, len(rows), batch):
            which = slice(first, first + batch)
            noise = Noise.of_samples(self.seed, stream, samples=samples[which], device=self.device)
            given = Given.of(full[which], device=self.device)
            try:
                part = sample_clamped(self.process, self.network, given, self.chain, noise=noise)
            except ValueError as error:
                raise UserError(f"{stream}: a text holds the mask: {error}") from error
            parts.append(part)
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
        """Write on behind prompts.

        Args:
            prompts: Tokens; see ``encode``.
            samples: See ``fill``.
            stream: See ``fill``.
            batch: See ``fill``.
            most: How many tokens to keep of each; None keeps all.
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
        """Text of tokens where they stand; decoded alone they may lose their leading space."""
        head, whole = self.tokenizer.decode([[*before], [*before, *tokens]])
        return whole[len(head) :] if whole.startswith(head) else self.tokenizer.decode([tokens])[0]

    def until_end(self, tokens: Sequence[int]) -> list[int]:
        """Tokens up to the first that ends a text or fills a row."""
        words = self.tokenizer
        ends = {words.eos_id, words.pad_id, words.frame[1]}
        stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
        return list(tokens[:stop])


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """One way to draw, as people type it."""

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
        """The same as a grid of one cell.

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
    (chain,) = source.cells.values()
    network = source.opened.load(device)
    return Completer.of(
        source.opened, network, chain, bos=draws.bos, seed=draws.seed, device=device
    )
