"""The figure of the laboratory, and its error where a law comes from draws.

Shapes: S sentences, G blocks of draws.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor

from idlm_ds.laboratory.languages import Language


@final
@dataclass(frozen=True, slots=True)
class BlockEstimate:
    """A figure and its standard error."""

    value: float
    se: float


def divergence(language: Language, law: Float64[Tensor, " S"]) -> float:
    """Compute ``KL(truth | law)`` in nats; infinite where a true sentence cannot be drawn."""
    return (language.probs * (language.probs.log() - law.log())).sum().item()


def jackknife(language: Language, laws: Float64[Tensor, "G S"]) -> BlockEstimate:
    """Estimate the divergence and its error from blocks, less the bias of the logarithm.

    The error of an infinite one, or of one from a single block, is not known: NaN.
    """
    count = len(laws)
    whole = divergence(language, laws.mean(0))
    if count == 1:
        return BlockEstimate(whole, math.nan)
    without = [divergence(language, (laws.sum(0) - law) / (count - 1)) for law in laws]
    if math.isinf(max(without)):
        return BlockEstimate(whole, math.nan)
    left_out = torch.tensor(without, dtype=torch.float64)
    value = count * whole - (count - 1) * left_out.mean()
    se = ((count - 1) * left_out.var(correction=0)).sqrt()
    return BlockEstimate(value.item(), se.item())
