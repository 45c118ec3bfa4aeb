"""Layouts of models on disk."""

from dataclasses import dataclass
from typing import final

from idlm_ds.registry.table import NamedRow, by_name


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutRow(NamedRow):
    """A layout of models on disk; its entry point is a ``checkpoints.formats.base.Format``."""

    description: str
    networks: tuple[str, ...] = ("dit",)
    """Networks it can hold; empty for every one that has a plan."""

    families: tuple[str, ...] = ()
    """Families it can hold; empty for all."""

    needs: tuple[str, ...] = ()
    """What must be known to write it: ``family``, ``length``."""

    is_file: bool = False
    """Whether it is a file of a training program, with weights and a running mean of them."""

    has_mask_last: bool = False
    """Whether the mask comes on top of the other tokens."""

    states_time: bool = True
    """Whether it can say that a network is not conditioned on the noise level."""

    has_latent: bool = False
    """Whether those who read it know of a student's latent."""


LAYOUTS = by_name(
    LayoutRow(
        name="idlm_ds",
        entry_point="idlm_ds.checkpoints.formats.own:OwnFolder",
        description="model folder of this package",
        networks=(),
        needs=("family", "length"),
        has_latent=True,
    ),
    LayoutRow(
        name="hugging_face",
        entry_point="idlm_ds.checkpoints.formats.hugging_face:HuggingFace",
        description="Hugging Face folder of MDLM, Duo or IDLM",
    ),
    LayoutRow(
        name="sedd",
        entry_point="idlm_ds.checkpoints.formats.sedd:SEDDFolder",
        description="Hugging Face folder of SEDD",
        families=("sedd",),
        needs=("family",),
        has_mask_last=True,
    ),
    LayoutRow(
        name="sdtt",
        entry_point="idlm_ds.checkpoints.formats.sdtt:SDTTFolder",
        description="Hugging Face folder of SDTT",
        families=("mdlm", "sedd"),
        needs=("family",),
    ),
    LayoutRow(
        name="llada",
        entry_point="idlm_ds.checkpoints.formats.llada:LLaDAFolder",
        description="Hugging Face folder of LLaDA",
        networks=("llada",),
    ),
    LayoutRow(
        name="lightning",
        entry_point="idlm_ds.checkpoints.formats.lightning:Lightning",
        description="Lightning checkpoint of MDLM, Duo or SEDD",
        is_file=True,
    ),
    LayoutRow(
        name="sedd_training",
        entry_point="idlm_ds.checkpoints.formats.sedd:SEDDTraining",
        description="checkpoint of SEDD's training program",
        families=("sedd",),
        needs=("family",),
        is_file=True,
        has_mask_last=True,
        states_time=False,
    ),
)
