"""Fields of exported configuration files beyond those of the published layouts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from idlm_ds.registry.families import FAMILIES, SCHEDULES
from idlm_ds.registry.networks import NETWORKS
from idlm_ds.registry.table import load


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """The exported code of one architecture, and how transformers finds it."""

    name: str
    """``model_type``, and how the names of the files of configuration and model end."""

    config: str
    model: str
    """Names of their classes."""

    auto: tuple[str, ...]
    """Auto classes that find the model; the last one is the one to use."""

    end_of_text: tuple[str, ...] = ()
    """Fields that the release's own code would otherwise fill with another model's id."""

    constants: Mapping[str, Any] = field(default_factory=dict)
    """Other fields that its code would otherwise fill with another model's values."""

    @property
    def module(self) -> str:
        """The file the rest of the code follows from."""
        return f"modeling_{self.name}"

    def fields(self, eos_id: int) -> dict[str, Any]:
        """Fields of ``config.json``: what names it, and what its code would else fill in."""
        classes = dict.fromkeys(self.auto, f"{self.module}.{self.model}")
        return {
            **dict.fromkeys(self.end_of_text, eos_id),
            **self.constants,
            "model_type": self.name,
            "architectures": [self.model],
            "auto_map": {"AutoConfig": f"configuration_{self.name}.{self.config}", **classes},
        }


DIT = Code(
    name="idlm",
    config="IDLMConfig",
    model="IDLMForMaskedLM",
    auto=("AutoModel", "AutoModelForMaskedLM"),
)

LLADA = Code(
    name="llada",
    config="LLaDAConfig",
    model="LLaDAModelLM",
    auto=("AutoModel", "AutoModelForCausalLM"),
    end_of_text=("eos_token_id", "pad_token_id"),
    constants={
        "use_cache": False,
        "attention_dropout": 0.0,
        "residual_dropout": 0.0,
        "embedding_dropout": 0.0,
    },
)


def codes() -> dict[str, Code]:
    """Look up the exported code of a kind of network."""
    return {name: load(row.code) for name, row in NETWORKS.items() if row.code}


def family_fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the keys of a recipe's ``process`` that its family is a function of."""
    of_schedule = SCHEDULES[settings["schedule"]].settings
    of_family = FAMILIES[settings["name"]].settings
    return {k: settings[k] for k in ("name", "schedule", *of_schedule, "t_min", *of_family)}
