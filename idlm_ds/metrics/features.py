"""What a judge makes of a text, as one vector."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor

from idlm_ds.metrics.judge import Judge


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """One vector a text, and what they are."""

    vectors: Float32[Tensor, "N D"]
    judge: str
    max_tokens: int
    """How much of a text was read, in the judge's tokens."""

    @property
    def description(self) -> str:
        """The choice in words, for the record."""
        return (
            f"hidden state of {self.judge} at the last of the first {self.max_tokens} tokens, "
            "after the last norm"
        )


@torch.no_grad()
def last_token_features(
    judge: Judge, texts: Sequence[str], *, max_tokens: int = 100, batch: int = 8
) -> Features:
    """Read the beginning of each text and take the hidden state of its last token.

    A text shorter than ``max_tokens`` is read to its end; an empty one is read as an EOS. The
    vectors do not depend on ``batch``.

    Precision: float32. Sync: waits for the device.
    """
    trunk = judge.model.base_model
    assert isinstance(trunk, torch.nn.Module)
    found = []
    for start in range(0, len(texts), batch):
        encoded = judge.encode(texts[start : start + batch], max_tokens)
        seen = encoded.seen.to(judge.device)
        states = trunk(input_ids=encoded.ids.to(judge.device), attention_mask=seen.long())
        rows = torch.arange(len(seen), device=judge.device)
        found.append(states.last_hidden_state[rows, seen.sum(dim=1) - 1].float().cpu())
    return Features(vectors=torch.cat(found), judge=judge.name, max_tokens=max_tokens)
