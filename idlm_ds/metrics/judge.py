"""Judge: a causal language model that scores texts of other models."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor, nn

Masking: TypeAlias = Literal["published", "strict"]

LOGITS = {"cpu": 2**25, "cuda": 2**28}
"""Scores (texts x positions x vocabulary) that exist at a time, by kind of device."""


def scored_targets(
    ids: Int[Tensor, "B L"],
    text: Bool[Tensor, "B L"],
    *,
    eos_id: int | None,
    masking: Masking = "published",
) -> Bool[Tensor, "B L"]:
    """Mark the positions whose token is scored.

    Position 0 has no context and is never scored. ``text`` is false at padding and at a BOS
    prefix, which are not scored and do not count as the first EOS.

    * ``published``: the first EOS and the text after it are scored; only later EOS tokens are
      left out.
    * ``strict``: the first EOS is scored and everything after it is left out. An EOS at the very
      beginning is a frame: it ends nothing and is not scored.
    """
    keep = text.clone()
    if eos_id is not None:
        eos = (ids == eos_id) & text
        if masking == "published":
            keep &= ~eos | (eos.cumsum(dim=1) == 1)
        else:
            # Positions before and at the first EOS that is not the frame.
            frame = eos & (text.cumsum(dim=1) == 1)
            ends = eos & ~frame
            ended_before = ends.cumsum(dim=1) - ends.long() > 0
            keep &= ~frame & ~ended_before
    keep[:, 0] = False
    return keep


@dataclass(frozen=True, slots=True)
class JudgeBatch:
    """A padded batch of texts in the judge's tokens."""

    ids: Int64[Tensor, "B L"]
    text: Bool[Tensor, "B L"]
    """False at padding and at a BOS prefix."""

    attended: Bool[Tensor, "B L"]
    """Attention mask; at least one position per row, even for an empty text."""


@final
class Judge:
    """A causal language model with its tokenizer, by which texts are scored."""

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, name: str, context: int, prefix_bos: bool = False
    ) -> None:
        if context < 2:
            raise ValueError(f"judge: context={context}; allowed: 2 or more")
        if prefix_bos and tokenizer.bos_token_id is None:
            raise ValueError(
                f"judge: prefix_bos=True, but the tokenizer of {name} has no BOS token"
            )
        self.name = name
        self.context = context
        self.prefix_bos = prefix_bos
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def score(
        self, texts: Sequence[str], batch: int = 8, *, masking: Masking = "published"
    ) -> tuple[Float64[Tensor, " N"], Int64[Tensor, " N"]]:
        """Sum the nats of each text and count its scored tokens, according to ``scored_targets``.

        Texts are encoded by the judge's tokenizer, without added special tokens, and cut to its
        context; names of special tokens in a text become those tokens. Padding is neither
        scored nor attended to, so the result does not depend on ``batch``. A text without scored
        tokens gives (0, 0).

        Units: nats. Precision: log-softmax in float32, sums in float64.
        Sync: waits for the device.

        Raises:
            ValueError: ``batch`` is not positive.
        """
        if batch < 1:
            raise ValueError(f"score: batch={batch}; allowed: 1 or more")
        nats = torch.zeros(len(texts), dtype=torch.float64)
        tokens = torch.zeros(len(texts), dtype=torch.int64)
        for start in range(0, len(texts), batch):
            part = slice(start, start + batch)
            encoded = self.encode(texts[part])
            keep = self.targets(encoded, masking)
            nats[part], tokens[part] = self.nats(encoded, keep).cpu(), keep.sum(dim=1)
        return nats, tokens

    def encode(self, texts: Sequence[str], max_tokens: int | None = None) -> JudgeBatch:
        """Encode texts, cut to the context or to ``max_tokens``, with the BOS prefix if any."""
        skip = int(self.prefix_bos)
        room = min(self.context - skip, max_tokens or self.context)
        rows: list[list[int]] = [
            self.tokenizer(
                text, add_special_tokens=False, truncation=True, max_length=room, verbose=False
            )["input_ids"]
            for text in texts
        ]
        width = skip + max(1, *(len(row) for row in rows))
        # An empty text becomes a single EOS, since attention needs at least one position.
        ids = torch.full((len(rows), width), self.tokenizer.eos_token_id or 0)
        text = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, skip : skip + len(row)] = torch.tensor(row, dtype=torch.int64)
            text[i, skip : skip + len(row)] = True
        attended = text.clone()
        attended[:, 0] = True
        if self.prefix_bos:
            ids[:, 0] = self.tokenizer.bos_token_id
        return JudgeBatch(ids, text, attended)

    def targets(self, encoded: JudgeBatch, masking: Masking) -> Bool[Tensor, "B L"]:
        """Mark the scored positions of a batch, according to ``scored_targets``."""
        eos_id = self.tokenizer.eos_token_id
        return scored_targets(encoded.ids, encoded.text, eos_id=eos_id, masking=masking)

    def nats(self, encoded: JudgeBatch, keep: Bool[Tensor, "B L"]) -> Float64[Tensor, " B"]:
        """Sum the nats of the tokens of each text where ``keep`` is true.

        Units: nats. Precision: log-softmax in float32, sums in float64.
        Gradient: reaches those parameters of the network that require one. Without it, no more
        than ``LOGITS`` scores exist at a time.
        """
        rows = [t.to(self.device) for t in (encoded.ids, encoded.attended.long(), keep)]
        texts, width = rows[0].shape
        if not torch.is_grad_enabled():
            texts, width = self._sizes(width)
        parts = zip(*(tensor.split(texts) for tensor in rows), strict=True)
        return torch.cat([self._nats(*part, width=width) for part in parts])

    def _sizes(self, length: int) -> tuple[int, int]:
        """How many texts of a length, and how many of their positions, are scored at a time."""
        most = LOGITS["cpu" if self.device.type == "cpu" else "cuda"]
        vocab_size = getattr(getattr(self.model, "config", None), "vocab_size", 1)
        return max(1, most // (length * vocab_size)), min(length, max(1, most // vocab_size))

    def _nats(
        self,
        ids: Int[Tensor, "B L"],
        attended: Int[Tensor, "B L"],
        keep: Bool[Tensor, "B L"],
        *,
        width: int,
    ) -> Float64[Tensor, " B"]:
        """See ``nats``; scores of ``width`` positions exist at a time."""
        sums = []
        for first, logits in self._logits(ids, attended, width):
            block = slice(first + 1, first + 1 + logits.shape[1])
            of_block = []
            # Row by row: for a large vocabulary, a float32 copy of all logits takes gigabytes.
            for row, target, counts in zip(logits, ids[:, block], keep[:, block], strict=True):
                scored = row[: len(target)].float()
                nats = F.cross_entropy(scored, target, reduction="none").double()
                of_block.append(nats[counts].sum())
            sums.append(torch.stack(of_block))
        return torch.stack(sums).sum(0)

    def _logits(
        self, ids: Int[Tensor, "B L"], attended: Int[Tensor, "B L"], width: int
    ) -> Iterator[tuple[int, Float[Tensor, "B W V"]]]:
        """Yield the first position of each block of ``width``, and the scores there.

        The trunk runs once. A model that cannot score a part of the positions gives one block.
        """
        inputs = {"input_ids": ids, "attention_mask": attended}
        length, trunk = ids.shape[1], getattr(self.model, "base_model", self.model)
        takes_part = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        if width >= length or trunk is self.model or not takes_part:
            yield 0, self.model(**inputs).logits
            return
        assert isinstance(trunk, nn.Module)
        with _answering(trunk, trunk(**inputs)):
            for first in range(0, length, width):
                part = torch.arange(first, min(first + width, length), device=ids.device)
                yield first, self.model(**inputs, logits_to_keep=part).logits


@contextmanager
def _answering(module: nn.Module, output: Any) -> Iterator[None]:
    """Let a module return what it has computed before."""
    module.forward = lambda *inputs, **more: output
    try:
        yield
    finally:
        del module.forward
