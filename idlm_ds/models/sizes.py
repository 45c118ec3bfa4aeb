"""Published network sizes."""

from collections.abc import Mapping
from types import MappingProxyType

from idlm_ds.models.dit import DiTConfig
from idlm_ds.models.llada import LLaDAConfig


def _dit(hidden: int, blocks: int, heads: int) -> DiTConfig:
    return DiTConfig(vocab_size=50_258, hidden=hidden, blocks=blocks, heads=heads, dropout=0.1)


PUBLISHED: Mapping[str, DiTConfig | LLaDAConfig] = MappingProxyType(
    {
        "dit-tiny-duo": _dit(256, 8, 8),
        "dit-tiny-mdlm": _dit(512, 8, 8),
        "dit-small": _dit(768, 12, 12),
        "dit-medium": _dit(1024, 24, 16),
        "dit-large": _dit(1536, 24, 16),
        "llada-8b": LLaDAConfig(),
    }
)
"""By name: the two tiny ones are of Duo and MDLM, the large one is SDTT's "0.9B".

Vocabularies are those of the releases: GPT-2's words and a mask, or LLaDA's table. One size serves
families that show a network the time and families that do not, so ``time_conditioning`` is off
here and the caller's to set.
"""
