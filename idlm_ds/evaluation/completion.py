"""A saved model that continues prompts and fills gaps."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias, final

import torch

from idlm_ds.build.saved_model import OpenModel
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from idlm_ds.evaluation.draw import Drawn, SingleProcess, draw_set
from idlm_ds.evaluation.options import CompletionOptions
from idlm_ds.evaluation.sources import open_checkpoint, sampler_config, sampler_of
from idlm_ds.noise import Noise
from idlm_ds.processes.base import Denoiser, Process
from idlm_ds.samplers.clamped import Given, sample_clamped
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.samplers.reverse import Sampled

GappedTokens: TypeAlias = Sequence[int | None]
"""A sequence; None is to be drawn."""


@final
@dataclass(frozen=True, slots=True)
class Completion:
    """Text that a model wrote behind a prompt."""

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
    """Tokens of the returned texts; what was drawn behind their end does not count."""

    nfe: int
    """Network calls, summed over the sequences."""

    seconds: float

    def __add__(self, other: "Speed") -> "Speed":
        """Add the cost of completions drawn afterwards."""
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
        names = {"nfe": "NFE", "tokens_per_forward": "tokens/forward", "tokens_per_s": "tokens/s"}
        figures = [f"{names[k]} {v:.3g}" for k, v in self.figures().items() if v is not None]
        return ", ".join([f"{self.count} sequences", *figures])


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Completer:
    """A loaded model, and how it draws.

    Every sequence is drawn at full length, since a network knows sequences of one length: the rest
    behind a short prompt is drawn too, and cut at the first end of text.
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
        """Wrap a model that has been loaded on a device."""
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
        """Encode a text that a sequence begins with, its opening token included."""
        return [self.tokenizer.frame[0]] * self.bos + self.tokenizer.encode([text])[0]

    def fill(
        self, rows: Sequence[GappedTokens], samples: Sequence[int], *, stream: str, batch: int
    ) -> Drawn:
        """Draw what is missing, also behind the end of rows shorter than ``length``.

        The purpose ``stream`` and each row's number in ``samples`` name its random numbers; nothing
        but speed depends on ``batch``.

        Raises:
            UserError: A row contains the mask token.
        """
        full = [[*row, *[None] * (self.length - len(row))] for row in rows]

        def draw(indices: Sequence[int]) -> Sampled:
            given = Given.of([full[i] for i in indices], device=self.device)
            numbers = [samples[i] for i in indices]
            noise = Noise.of_samples(self.seed, stream, samples=numbers, device=self.device)
            try:
                return sample_clamped(self.process, self.network, given, self.config, noise=noise)
            except ValueError as error:
                raise UserError(f"{stream}: a text holds the mask: {error}") from error

        return draw_set(draw, len(rows), batch=batch, ranks=SingleProcess(self.device))

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        samples: Sequence[int],
        *,
        stream: str,
        batch: int,
        most: Sequence[int | None] | None = None,
    ) -> list[Completion]:
        """Continue prompts; see ``fill``. Of each text at most its ``most`` tokens are kept."""
        drawn = self.fill(prompts, samples, stream=stream, batch=batch)
        limits = most or [None] * len(prompts)
        rows = zip(prompts, limits, drawn.tokens.tolist(), drawn.evaluations.tolist(), strict=True)
        completions = []
        for prompt, limit, tokens, nfe in rows:
            kept = self.until_end(tokens[len(prompt) :])[:limit]
            text = self.decode_behind(tokens[: len(prompt)], kept)
            completions.append(Completion(text, len(kept), nfe))
        return completions

    def decode_behind(self, before: Sequence[int], tokens: Sequence[int]) -> str:
        """Decode tokens in their context; alone they may lose their leading space."""
        head, whole = self.tokenizer.decode([[*before], [*before, *tokens]])
        return whole[len(head) :] if whole.startswith(head) else self.tokenizer.decode([tokens])[0]

    def until_end(self, tokens: Sequence[int]) -> list[int]:
        """Cut tokens before the first that ends a text or fills a row."""
        tokenizer = self.tokenizer
        ends = {tokenizer.eos_id, tokenizer.pad_id, tokenizer.frame[1]}
        stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
        return list(tokens[:stop])


def open_completer(checkpoint: str, options: CompletionOptions, device: torch.device) -> Completer:
    """Load a checkpoint.

    Raises:
        UserError: It cannot be used, or has no such sampler.
    """
    opened = open_checkpoint(checkpoint, options)
    config = sampler_of(sampler_config(options), opened)
    network = opened.load(device)
    return Completer.of(opened, network, config, bos=options.bos, seed=options.seed, device=device)
