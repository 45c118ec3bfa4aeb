"""Features of texts from the hidden states of a judge."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor

from idlm_ds.metrics.judge import Judge


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """One vector per text, with the settings that produced them."""

    vectors: Float32[Tensor, "N D"]
    judge: str
    max_tokens: int
    """Limit of a text in the judge's tokens."""

    @property
    def description(self) -> str:
        """Settings in words, for the record of a score."""
        return (
            f"hidden state of {self.judge} at the last of the first {self.max_tokens} tokens, "
            "after the last norm"
        )


@torch.no_grad()
def last_token_features(
    judge: Judge, texts: Sequence[str], *, max_tokens: int = 100, batch: int = 8
) -> Features:
    """Return the hidden state at the last token of each text's beginning.

    A text is read up to ``max_tokens`` or its end; an empty one is read as an EOS. The vectors do
    not depend on ``batch``.

    Precision: float32. Sync: waits for the device.
    """
    trunk = judge.model.base_model
    assert isinstance(trunk, torch.nn.Module)
    vectors = []
    for start in range(0, len(texts), batch):
        encoded = judge.encode(texts[start : start + batch], max_tokens)
        attended = encoded.attended.to(judge.device)
        states = trunk(input_ids=encoded.ids.to(judge.device), attention_mask=attended.long())
        rows = torch.arange(len(attended), device=judge.device)
        vectors.append(states.last_hidden_state[rows, attended.sum(dim=1) - 1].float().cpu())
    return Features(vectors=torch.cat(vectors), judge=judge.name, max_tokens=max_tokens)
