"""A causal language model from a local folder that scores text written by others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64, Int, Int64
from torch import Tensor, nn

Masking: TypeAlias = Literal["published", "strict"]


def scored_targets(
    ids: Int[Tensor, "B L"],
    text: Bool[Tensor, "B L"],
    *,
    eos_id: int | None,
    masking: Masking = "published",
) -> Bool[Tensor, "B L"]:
    """Mark the positions whose token is scored, given all tokens before it.

    Position 0 has nothing before it and is never scored. ``text`` is False at padding and at a
    BOS prefix, which neither count nor use up the first EOS.

    * ``published``: the first EOS of the text counts, and so does the text after it; only later
      EOS tokens are left out.
    * ``strict``: the first EOS counts and all that follows is left out. An EOS that the text
      opens with is its frame: it ends nothing and is not scored.
    """
    keep = text.clone()
    if eos_id is not None:
        eos = (ids == eos_id) & text
        if masking == "published":
            keep &= ~eos | (eos.cumsum(dim=1) == 1)
        else:
            frame = eos & (text.cumsum(dim=1) == 1)
            ends = eos & ~frame
            ended_before = ends.cumsum(dim=1) - ends.long() > 0
            keep &= ~frame & ~ended_before
    keep[:, 0] = False
    return keep


@dataclass(frozen=True, slots=True)
class Encoded:
    """Texts in a judge's own tokens, one padded batch."""

    ids: Int64[Tensor, "B L"]
    text: Bool[Tensor, "B L"]
    """False at padding and at a BOS prefix."""

    seen: Bool[Tensor, "B L"]
    """What the network attends to: never nothing, not even in an empty text."""


@final
class Judge:
    """Scores texts under one causal language model and its own tokenizer."""

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
        """Where the network computes."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def score(
        self, texts: Sequence[str], batch: int = 8, *, masking: Masking = "published"
    ) -> tuple[Float64[Tensor, " N"], Int64[Tensor, " N"]]:
        """Sum the nats of each text and count its scored tokens, by `scored_targets`.

        Texts are tokenised anew and cut to the judge's context. Special tokens written in a
        text are read as such; the tokenizer adds none. Padding neither counts nor is seen, so
        the answer does not depend on ``batch``. A text of no scored token gives (0, 0).

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

    def encode(self, texts: Sequence[str], max_tokens: int | None = None) -> Encoded:
        """Tokenise a batch, cut to the judge's context or to ``max_tokens`` before a BOS prefix."""
        skip = int(self.prefix_bos)
        room = min(self.context - skip, max_tokens or self.context)
        rows: list[list[int]] = [
            self.tokenizer(
                text, add_special_tokens=False, truncation=True, max_length=room, verbose=False
            )["input_ids"]
            for text in texts
        ]
        width = skip + max(1, *(len(row) for row in rows))
        # An empty text is seen as an EOS alone, and so is never nothing.
        ids = torch.full((len(rows), width), self.tokenizer.eos_token_id or 0)
        text = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, skip : skip + len(row)] = torch.tensor(row, dtype=torch.int64)
            text[i, skip : skip + len(row)] = True
        seen = text.clone()
        seen[:, 0] = True
        if self.prefix_bos:
            ids[:, 0] = self.tokenizer.bos_token_id
        return Encoded(ids, text, seen)

    def targets(self, encoded: Encoded, masking: Masking) -> Bool[Tensor, "B L"]:
        """Mark what is scored of a batch, by `scored_targets`."""
        eos_id = self.tokenizer.eos_token_id
        return scored_targets(encoded.ids, encoded.text, eos_id=eos_id, masking=masking)

    def nats(self, encoded: Encoded, keep: Bool[Tensor, "B L"]) -> Float64[Tensor, " B"]:
        """Sum the nats of the kept tokens of each text.

        Units: nats. Precision: log-softmax in float32, sums in float64.
        Gradient: reaches the network's parameters where they ask for one.
        """
        ids = encoded.ids.to(self.device)
        logits = self.model(
            input_ids=ids, attention_mask=encoded.seen.long().to(self.device)
        ).logits
        sums = []
        # Row by row: a float32 copy of all logits of a large vocabulary is gigabytes.
        for row, target, counts in zip(logits, ids, keep.to(self.device), strict=True):
            nats = F.cross_entropy(row[:-1].float(), target[1:], reduction="none").double()
            sums.append(nats[counts[1:]].sum())
        return torch.stack(sums)
