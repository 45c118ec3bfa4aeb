"""The schema of the installed DeepSpeed: every field that its configuration is asked for."""

from collections.abc import Iterator
from typing import Any, get_args
from unittest.mock import patch

from deepspeed.comm.config import CommsLoggerConfig
from deepspeed.compile.config import CompileConfig
from deepspeed.inference.config import WeightQuantConfig
from deepspeed.monitor.config import DeepSpeedMonitorConfig
from deepspeed.runtime import config
from deepspeed.runtime.config import DeepSpeedConfig, HybridEngineConfig
from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
from deepspeed.runtime.tensor_parallel.config import TPTrainingConfig
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.utils.config import DeepSpeedThroughputTimerConfig
from pydantic import BaseModel

MODELS: dict[str, type[BaseModel]] = {
    "zero_optimization": DeepSpeedZeroConfig,
    "bf16": DeepSpeedBF16Config,
    "fp16": DeepSpeedFP16Config,
    "comms_logger": CommsLoggerConfig,
    "compile": CompileConfig,
    "hybrid_engine": HybridEngineConfig,
    "tensor_parallel": TPTrainingConfig,
    "timers.throughput": DeepSpeedThroughputTimerConfig,
    "weight_quantization": WeightQuantConfig,
}
"""Sections that DeepSpeed reads with pydantic."""

ASKED = (
    *("activation_checkpointing", "aio", "autotuning", "checkpoint", "data_efficiency"),
    *("data_types", "flops_profiler", "optimizer", "scheduler", "torch_autocast"),
    "zero_optimization",
)
"""Sections of which DeepSpeed asks for names; of the last one for names that were removed."""


class Asked(dict[str, Any]):
    """A configuration that notes every name it is asked for."""

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.names: set[str] = set()

    def __copy__(self) -> "Asked":
        return self

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return super().__contains__(name)

    def __getitem__(self, name: str) -> Any:
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)

    def keys(self) -> "Asked":
        """DeepSpeed asks ``name in fields.keys()`` too."""
        return self


def schema() -> set[str]:
    """Dotted names of all fields, by whatever name DeepSpeed takes them."""
    batch = {"train_micro_batch_size_per_gpu": 1}
    sections = {name: Asked({}) for name in ASKED}
    whole = Asked(batch | sections)
    old = Asked({**batch, "zero_optimization": True})
    with (
        patch.object(config.dist, "get_rank", return_value=0),
        patch.object(config.dist, "get_world_size", return_value=1),
    ):
        for fields in (Asked(batch), whole, old):
            DeepSpeedConfig(fields)
            whole.names |= fields.names
    names = set(whole.names)
    for section, asked in sections.items():
        names |= {f"{section}.{name}" for name in asked.names}
    for section, model in MODELS.items():
        names |= set(_fields_of(section, model))
    names |= {name.removeprefix(".") for name in _fields_of("", DeepSpeedMonitorConfig)}
    return names


def _fields_of(section: str, model: type[BaseModel]) -> Iterator[str]:
    for name, info in model.model_fields.items():
        for known in {name, info.alias or name}:
            yield f"{section}.{known}"
        for inner in (info.annotation, *get_args(info.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _fields_of(f"{section}.{name}", inner)
