"""Samplers, and the choices that go with them."""

from dataclasses import dataclass
from typing import final

from idlm_ds.registry.table import by_name


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    """A way to draw samples."""

    name: str
    entry_point: str
    """Class of its reverse step; a function, for a sampler that is no reverse chain."""

    needs_mask: bool = False
    """Whether it is defined for masked families only."""

    is_chain: bool = True
    """Whether it walks down from pure noise; else it continues a prompt."""

    takes_truncation: bool = True
    """Whether temperature, nucleus and float32 draws mean something to it."""


SAMPLERS = by_name(
    (
        Sampler(name="ancestral", entry_point="idlm_ds.processes.base:Process.step"),
        Sampler(
            name="analytic",
            entry_point="idlm_ds.samplers.score:Analytic",
            needs_mask=True,
            takes_truncation=False,
        ),
        Sampler(
            name="euler",
            entry_point="idlm_ds.samplers.score:Euler",
            needs_mask=True,
            takes_truncation=False,
        ),
        Sampler(
            name="blockwise",
            entry_point="idlm_ds.samplers.blockwise:sample_blockwise",
            needs_mask=True,
            is_chain=False,
        ),
    )
)

TAILS = ("ancestral", "greedy", "none")
"""How the last noise is removed: drawn like every other step, by the likeliest token, or not."""

PRECISIONS = ("float64", "float32")
"""Of draws; float32 repeats the bias of published samplers."""
