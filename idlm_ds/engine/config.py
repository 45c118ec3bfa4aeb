"""Engine configurations: the user's DeepSpeed JSON and a few explicit values.

The JSON says how an engine is run: sharding, communication, offload. What is computed (optimizer,
precision, batch, clipping) is written in here, so that no DeepSpeed default can change it.
"""

import copy
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

from idlm_ds.errors import UserError

ENGINE_FIELDS = {
    "zero_optimization",
    "activation_checkpointing",
    "aio",
    "comms_logger",
    "communication_data_type",
    "data_types",
    "flops_profiler",
    "memory_breakdown",
    "prescale_gradients",
    "gradient_predivide_factor",
    "sparse_gradients",
    "wall_clock_breakdown",
    "zero_force_ds_cpu_optimizer",
}
"""Fields the JSON may set freely."""

RECIPE_FIELDS = {
    "train_micro_batch_size_per_gpu": "train.micro_batch",
    "train_batch_size": "train.global_batch",
    "gradient_accumulation_steps": "train.global_batch and train.micro_batch",
    "gradient_clipping": "optim.clip",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "optimizer": "optim.*",
    "scheduler": "optim.*",
}
"""Fields the JSON may only repeat, and the recipe key that decides each."""

ON_ONE_RANK = {"reduce_bucket_size", "allgather_bucket_size", "round_robin_gradients"}
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
        return int(self.fields["zero_optimization"]["stage"])

    def in_world(self, size: int, precision: str) -> "EngineJson":
        """Return the engine to use on a number of ranks: on one, stage 3 becomes stage 1.

        There is nothing to shard, and the hooks that gather weights would only cost time. In bf16
        it becomes stage 2, which adds gradients in float32. Stage 3 stays where weights or
        optimizer are offloaded.
        """
        zero = self.fields["zero_optimization"]
        if size > 1 or self.stage < 3 or any(key.startswith("offload") for key in zero):
            return self
        kept = {k: v for k, v in zero.items() if k in ON_ONE_RANK}
        kept["stage"] = 2 if precision == "bf16" else 1
        return EngineJson(self.name, {**self.fields, "zero_optimization": kept})

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
                    # the weights, no extension to compile.
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
            fields["zero_optimization"] = {"stage": 0}
        else:
            fields["zero_optimization"].pop("offload_optimizer", None)
        return fields

    def _base(self, numerics: Numerics) -> dict[str, Any]:
        fields = {k: v for k, v in self.fields.items() if k in ENGINE_FIELDS}
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
    """Read and check a DeepSpeed configuration file.

    Raises:
        UserError: The file is missing, not JSON, has an unknown or refused field, or asks
            for a stage that cannot be right.
    """
    try:
        fields = json.loads(path.read_text("utf-8"), object_pairs_hook=_no_duplicates)
    except FileNotFoundError as error:
        raise UserError(f"--config: no such file: {path}") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, UserError) as error:
        raise UserError(f"--config {path}: not readable as JSON: {error}") from error
    if not isinstance(fields, dict):
        raise UserError(f"--config {path}: expected an object, got {type(fields).__name__}")
    for key in fields:
        _check_known(path, key)
    _check_zero(path, fields.get("zero_optimization"))
    return EngineJson(path.name, fields)


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
    for key, recipe_key in RECIPE_FIELDS.items():
        if key not in engine.fields:
            continue
        if key not in decided:
            raise UserError(
                f"{engine.name}: {key}: belongs to the recipe ({recipe_key}); remove it here"
            )
        if engine.fields[key] != decided[key]:
            raise UserError(
                f"{engine.name}: {key} is {engine.fields[key]!r} but the recipe's {recipe_key} "
                f"makes it {decided[key]!r}; remove it from the JSON or change the recipe"
            )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [k for k, _ in pairs]
    if repeated := {k for k in keys if keys.count(k) > 1}:
        raise UserError(f"{min(repeated)!r} appears twice")
    return dict(pairs)


def _check_known(path: Path, key: str) -> None:
    known = ENGINE_FIELDS | RECIPE_FIELDS.keys()
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(ENGINE_FIELDS))}"
        raise UserError(f"--config {path}: {key}: unknown field; {hint}")


def _check_zero(path: Path, zero: Any) -> None:
    if not isinstance(zero, dict) or "stage" not in zero:
        raise UserError(f"--config {path}: zero_optimization.stage is required (1, 2 or 3)")
    if zero["stage"] not in (1, 2, 3) or isinstance(zero["stage"], bool):
        raise UserError(
            f"--config {path}: zero_optimization.stage is {zero['stage']!r}; allowed: 1, 2, 3 "
            "(stage 0 uses another optimizer class and other numbers; 1 shards only its state)"
        )
    for key in zero:
        names = {n for f, i in DeepSpeedZeroConfig.model_fields.items() for n in (f, i.alias) if n}
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"--config {path}: zero_optimization.{key}: unknown field{hint}")
    try:
        DeepSpeedZeroConfig(**zero)
    except (ValueError, TypeError) as error:
        first = str(error).replace("\n", " ")[:160]
        raise UserError(f"--config {path}: zero_optimization: {first}") from error
