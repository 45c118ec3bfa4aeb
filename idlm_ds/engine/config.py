"""Engine configurations: the user's DeepSpeed JSON and a few explicit values.

The JSON says how an engine is run: sharding, communication, offload. What is computed (optimizer,
precision, batch, clipping) is written in here, so that no DeepSpeed default can change it.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idlm_ds.engine.json_check import OFFLOADS, ZERO, printable, read_fields
from idlm_ds.engine.json_fields import DECIDED, HANDED_ON
from idlm_ds.engine.json_values import shown
from idlm_ds.errors import UserError

ON_ONE_RANK = {"reduce_bucket_size", "reduce_scatter"}
"""Fields of ``zero_optimization`` that a lower stage takes over from stage 3."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamW:
    """The optimizer of a trained role, in torch's terms."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Numerics:
    """What every engine of a run shares."""

    micro_batch: int
    accumulation: int
    world: int
    precision: str
    clip: float


@dataclass(frozen=True, slots=True)
class EngineJson:
    """A checked DeepSpeed file."""

    name: str
    fields: Mapping[str, Any]

    @property
    def stage(self) -> int:
        """The ZeRO stage."""
        return int(self.fields[ZERO]["stage"])

    @property
    def offloads_optimizer(self) -> bool:
        """Whether fp32 weights and moments are on the CPU."""
        return "offload_optimizer" in self.fields[ZERO]

    def in_world(self, size: int, precision: str) -> "EngineJson":
        """Return the engine to use on a number of ranks: on one, stage 3 becomes stage 1.

        There is nothing to shard, and the hooks that gather weights would only cost time. In bf16
        it becomes stage 2, which adds gradients in float32. Stage 3 stays where weights or
        optimizer are offloaded.
        """
        zero = self.fields[ZERO]
        if size > 1 or self.stage < 3 or any(name in zero for name in OFFLOADS):
            return self
        kept = {k: v for k, v in zero.items() if k in ON_ONE_RANK}
        kept["stage"] = 2 if precision == "bf16" else 1
        return EngineJson(self.name, {**self.fields, ZERO: kept})

    def trained(self, numerics: Numerics, optimizer: AdamW) -> dict[str, Any]:
        """Build the configuration of an engine that learns."""
        return self._base(numerics) | {
            "optimizer": {
                "type": "AdamW",
                "params": {
                    "lr": optimizer.lr,
                    "betas": list(optimizer.betas),
                    "eps": optimizer.eps,
                    "weight_decay": optimizer.weight_decay,
                    # One kernel of PyTorch on CPU and GPU alike: no temporaries of the size of
                    # the weights, no extension to compile, which on a GPU takes nvcc. Under
                    # offload from a GPU cpu_adam.py puts DeepSpeed's in its place.
                    "torch_adam": True,
                    "fused": True,
                },
            },
            "gradient_clipping": numerics.clip,
            "managed_gradient_accumulation": False,
        }

    def frozen(self, numerics: Numerics) -> dict[str, Any]:
        """Build the configuration of a frozen engine: ZeRO-3, or replicated below stage 3."""
        fields = self._base(numerics)
        if self.stage < 3:
            fields[ZERO] = {"stage": 0}
        else:
            fields[ZERO].pop("offload_optimizer", None)
        return fields

    def _base(self, numerics: Numerics) -> dict[str, Any]:
        fields = {k: v for k, v in self.fields.items() if k in HANDED_ON}
        is_bf16 = numerics.precision == "bf16"
        # Below stage 2 an fp32 accumulator changes DeepSpeed's optimizer class; leave it there.
        types = {"grad_accum_dtype": "fp32"} if is_bf16 and self.stage >= 2 else {}
        return copy.deepcopy(fields) | {
            "train_micro_batch_size_per_gpu": numerics.micro_batch,
            "gradient_accumulation_steps": 1,
            "bf16": {"enabled": is_bf16},
            "data_types": {**types, **fields.get("data_types", {})},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 1_000_000_000,
        }


def read_engine_json(path: Path) -> EngineJson:
    """Read and check a DeepSpeed configuration file; imports neither torch nor DeepSpeed.

    Raises:
        UserError: The file is missing, not JSON, or has a field that is unknown, refused, out of
            range or without effect.
    """
    return EngineJson(printable(path.name)[-60:], read_fields(path))


def check_agreement(engine: EngineJson, numerics: Numerics) -> None:
    """Refuse a JSON that contradicts the recipe.

    Raises:
        UserError: Names the JSON field, its value, the recipe key and its value.
    """
    is_bf16 = numerics.precision == "bf16"
    decided: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": numerics.micro_batch,
        "train_batch_size": numerics.micro_batch * numerics.accumulation * numerics.world,
        "gradient_accumulation_steps": numerics.accumulation,
        "gradient_clipping": numerics.clip,
        "bf16": {"enabled": is_bf16},
        "fp16": {"enabled": False},
    }
    for field, row in DECIDED.items():
        if field not in engine.fields:
            continue
        if not row.may_repeat:
            raise UserError(f"{engine.name}: {field}: belongs to the recipe ({row.key}); remove it")
        if not _is_same(engine.fields[field], decided[field]):
            raise UserError(
                f"{engine.name}: {field} is {shown(engine.fields[field])} but the recipe's "
                f"{row.key} makes it {decided[field]!r}; remove it from the JSON or change the "
                "recipe"
            )
    if not is_bf16 and engine.fields.get("data_types", {}).get("grad_accum_dtype") == "bf16":
        raise UserError(
            f"{engine.name}: data_types.grad_accum_dtype is 'bf16' but the recipe's "
            f"train.precision is {numerics.precision!r}; remove it from the JSON"
        )


def _is_same(said: Any, decided: Any) -> bool:
    """Compare values of JSON, in which a boolean is no number."""
    if isinstance(said, dict) and isinstance(decided, dict):
        return said.keys() == decided.keys() and all(_is_same(said[k], decided[k]) for k in said)
    if isinstance(said, bool) or isinstance(decided, bool):
        return said is decided
    return bool(said == decided)
