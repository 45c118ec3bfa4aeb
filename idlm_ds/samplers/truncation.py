"""Temperature and nucleus truncation of a network's answers."""

from dataclasses import dataclass
from typing import final

import torch

from idlm_ds.processes.absorbing import FORBIDDEN
from idlm_ds.processes.base import Process
from idlm_ds.tensor_types import Logits


@final
@dataclass(frozen=True, slots=True)
class Truncation:
    """Temperature, then nucleus, on the distribution of the clean token."""

    process: Process
    temperature: float = 1.0
    nucleus: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not 0 < self.nucleus <= 1:
            raise ValueError(f"nucleus must be in (0, 1], got {self.nucleus}")

    def __call__(self, raw: Logits) -> Logits:
        """Return scores of the truncated distribution."""
        if self.temperature != 1:
            # Normalised first without the mask, whose raw score a low temperature would magnify.
            raw = self.process.predict(raw) / self.temperature
        return raw if self.nucleus == 1 else self._cut(raw)

    def _cut(self, raw: Logits) -> Logits:
        """Keep the smallest set of likeliest tokens whose mass reaches ``nucleus``."""
        log_probs, order = self.process.predict(raw).sort(stable=True, dim=-1, descending=True)
        probs = log_probs.exp()
        before = probs.cumsum(-1) - probs
        kept = torch.where(before < self.nucleus, log_probs, FORBIDDEN)
        return torch.empty_like(kept).scatter_(1, order, kept)
