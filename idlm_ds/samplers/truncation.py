"""Temperature and nucleus truncation of a network's answers."""

import math
from dataclasses import dataclass
from typing import final

import torch

from idlm_ds.kernels.long_rows import parts
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
        """Turn scores into those of the truncated distribution, in place."""
        if self.temperature != 1:
            # Without the mask, whose raw score a low temperature would magnify.
            self.process.clean_scores_(raw)
            raw.sub_(raw.amax(1, keepdim=True)).div_(self.temperature)
        if self.nucleus != 1:
            for (part,) in parts(self.process.clean_scores_(raw)):
                self._cut_(part)
        return raw

    def _cut_(self, raw: Logits) -> None:
        """Keep the smallest set of likeliest tokens whose mass reaches ``nucleus``."""
        scores, order = raw.sort(stable=True, dim=1, descending=True)
        probs = scores.double().softmax(1)
        before = probs.cumsum(1) - probs
        is_cut = torch.empty_like(before, dtype=torch.bool).scatter_(
            1, order, before >= self.nucleus
        )
        raw.masked_fill_(is_cut, -math.inf)
