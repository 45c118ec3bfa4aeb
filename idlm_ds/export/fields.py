"""What exported configuration files say beyond the published layouts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from idlm_ds.build.processes import SCHEDULE_KEYS
from idlm_ds.samplers.config import SamplerConfig

DUO_KEYS = ("clock", "gamma_min", "gamma_max", "tau")
"""What else Duo's training is a function of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """The exported code of one architecture, and how transformers finds it."""

    layout: str
    """The published layout that weights and configuration have, in ``write_model``'s words."""

    name: str
    """``model_type``, and what the files of configuration and model end with."""

    config: str
    model: str
    """Names of their classes."""

    auto: tuple[str, ...]
    """Auto classes that find the model; the last one is the one to use."""

    @property
    def module(self) -> str:
        """The file the rest of the code follows from."""
        return f"modeling_{self.name}"

    def fields(self) -> dict[str, Any]:
        """What names it in ``config.json``."""
        classes = dict.fromkeys(self.auto, f"{self.module}.{self.model}")
        return {
            "model_type": self.name,
            "architectures": [self.model],
            "auto_map": {"AutoConfig": f"configuration_{self.name}.{self.config}", **classes},
        }


CODES: Mapping[str, Code] = {
    "dit": Code(
        layout="hugging_face",
        name="idlm",
        config="IDLMConfig",
        model="IDLMForMaskedLM",
        auto=("AutoModel", "AutoModelForMaskedLM"),
    ),
    "llada": Code(
        layout="llada",
        name="llada",
        config="LLaDAConfig",
        model="LLaDAModelLM",
        auto=("AutoModel", "AutoModelForCausalLM"),
    ),
}
"""By kind of network."""


def family_fields(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a family is a function of, out of all keys of a recipe's ``process``."""
    of_family = DUO_KEYS if told["name"] == "duo" else ()
    kept = ("name", "schedule", *SCHEDULE_KEYS[told["schedule"]], "t_min", *of_family)
    return {key: told[key] for key in kept}


def token_fields(kind: str, eos_id: int) -> dict[str, Any]:
    """What LLaDA's own code would else take from its defaults, which are another model's."""
    if kind != "llada":
        return {}
    dropout = dict.fromkeys(("attention_dropout", "residual_dropout", "embedding_dropout"), 0.0)
    return {"eos_token_id": eos_id, "pad_token_id": eos_id, "use_cache": False, **dropout}


def generation_fields(chain: SamplerConfig) -> dict[str, Any]:
    """Content of ``generation_config.json``."""
    return {"do_sample": True, **asdict(chain)}
