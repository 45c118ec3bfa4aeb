"""Layouts of models on disk."""

from dataclasses import dataclass
from typing import final

from idlm_ds.registry.table import by_name


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A way models are laid out on disk."""

    name: str
    description: str
    kinds: tuple[str, ...] = ("dit",)
    """Networks it can hold."""

    families: tuple[str, ...] = ()
    """Families it can hold; empty for all."""

    is_file: bool = False
    """Whether it is one file and no folder."""


LAYOUTS = by_name(
    (
        Layout(name="idlm_ds", description="model folder of this package", kinds=("dit", "llada")),
        Layout(name="hugging_face", description="Hugging Face folder of MDLM, Duo or IDLM"),
        Layout(name="sedd", description="Hugging Face folder of SEDD", families=("sedd",)),
        Layout(name="sdtt", description="Hugging Face folder of SDTT", families=("mdlm", "sedd")),
        Layout(name="llada", description="Hugging Face folder of LLaDA", kinds=("llada",)),
        Layout(
            name="lightning",
            description="Lightning checkpoint of MDLM, Duo or SEDD",
            is_file=True,
        ),
        Layout(
            name="sedd_training",
            description="checkpoint of SEDD's training program",
            families=("sedd",),
            is_file=True,
        ),
    )
)
