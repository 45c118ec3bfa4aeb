"""Architectures."""

from dataclasses import dataclass
from typing import final

from idlm_ds.registry.table import NamedRow, by_name


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkRow(NamedRow):
    """An architecture; its entry point is a class whose argument is a ``config``."""

    config: str
    """Class of its sizes."""

    initial_value: str
    """Function that draws the first value of a parameter; see ``models.init.InitialValue``."""

    objective: str = ""
    """The pretraining objective it can be trained with; empty where it is only loaded."""

    is_diffusion: bool = True
    """Whether it is a denoiser; else it reads from left to right."""

    has_time_conditioning: bool = False
    """Whether its ``config`` has a field ``time_conditioning``."""

    has_padded_vocabulary: bool = False
    """Whether it may have more ids than the tokenizer; its mask is one of the tokenizer's then."""

    plan: str = ""
    """Names and shapes of its parameters on disk, a ``checkpoints.formats.plans.Plan``."""

    code: str = ""
    """Exported code that runs it, an ``export.fields.Code``; empty where it is not exported."""

    exported_as: str = ""
    """The layout of exported weights and configuration."""


NETWORKS = by_name(
    NetworkRow(
        name="dit",
        entry_point="idlm_ds.models.dit:DiT",
        config="idlm_ds.models.dit:DiTConfig",
        initial_value="idlm_ds.models.dit:initial_value",
        objective="nelbo",
        has_time_conditioning=True,
        plan="idlm_ds.checkpoints.formats.plans:DIT",
        code="idlm_ds.export.fields:DIT",
        exported_as="hugging_face",
    ),
    NetworkRow(
        name="llada",
        entry_point="idlm_ds.models.llada:LLaDA",
        config="idlm_ds.models.llada:LLaDAConfig",
        initial_value="idlm_ds.models.llada:initial_value",
        has_padded_vocabulary=True,
        plan="idlm_ds.checkpoints.formats.plans:LLADA",
        code="idlm_ds.export.fields:LLADA",
        exported_as="llada",
    ),
    NetworkRow(
        name="gpt2",
        entry_point="idlm_ds.models.causal:CausalLM",
        config="transformers:GPT2Config",
        initial_value="idlm_ds.models.causal:initial_value",
        objective="ar",
        is_diffusion=False,
    ),
)


def trained_with(objective: str) -> list[str]:
    """Networks that a pretraining objective trains."""
    return [network.name for network in NETWORKS.values() if network.objective == objective]
