"""Architectures."""

from dataclasses import dataclass
from typing import final

from idlm_ds.registry.table import by_name


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """An architecture."""

    name: str
    module: str
    """Module with its ``initial_value``."""

    entry_point: str
    config: str
    """Class of its sizes."""

    is_diffusion: bool = True
    """Whether it is a denoiser; else it reads from left to right."""


NETWORKS = by_name(
    (
        Network(
            name="dit",
            module="idlm_ds.models.dit",
            entry_point="idlm_ds.models.dit:DiT",
            config="idlm_ds.models.dit:DiTConfig",
        ),
        Network(
            name="llada",
            module="idlm_ds.models.llada",
            entry_point="idlm_ds.models.llada:LLaDA",
            config="idlm_ds.models.llada:LLaDAConfig",
        ),
        Network(
            name="gpt2",
            module="idlm_ds.models.causal",
            entry_point="idlm_ds.models.causal:CausalLM",
            config="transformers:GPT2Config",
            is_diffusion=False,
        ),
    )
)
