"""Samplers, and the choices that go with them."""

from dataclasses import dataclass
from typing import final

from idlm_ds.registry.table import NamedRow, by_name, default


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerRow(NamedRow):
    """A way to draw samples.

    Its entry point makes the reverse step for a family; without a reverse chain, it is the sampler.
    """

    needs_mask: bool = False
    """Whether it is defined for masked families only."""

    is_chain: bool = True
    """Whether it is a reverse chain from pure noise; else it continues a prompt."""

    takes_truncation: bool = True
    """Whether temperature, nucleus and float32 draws mean something to it."""


SAMPLERS = by_name(
    SamplerRow(name="ancestral", entry_point="idlm_ds.samplers.reverse:ancestral_step"),
    SamplerRow(
        name="analytic",
        entry_point="idlm_ds.samplers.score:Analytic",
        needs_mask=True,
        takes_truncation=False,
    ),
    SamplerRow(
        name="euler",
        entry_point="idlm_ds.samplers.score:Euler",
        needs_mask=True,
        takes_truncation=False,
    ),
    SamplerRow(
        name="blockwise",
        entry_point="idlm_ds.samplers.blockwise:sample_blockwise",
        needs_mask=True,
        is_chain=False,
    ),
)

ANCESTRAL = default(SAMPLERS)

TAILS = DRAWN, GREEDY, NO_TAIL = ("ancestral", "greedy", "none")
"""How the last noise is removed: drawn like every other step, by the likeliest token, or not."""

REMASKINGS = ("low_confidence", "random")
"""Which candidates a step of blockwise throws away: the least certain ones, or any."""

PRECISIONS = FLOAT64, FLOAT32 = ("float64", "float32")
"""Of draws; float32 repeats the bias of published samplers."""
