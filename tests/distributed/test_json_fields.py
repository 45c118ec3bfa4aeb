"""Fields that a DeepSpeed file may set do run three engines, and change no number but rounding."""

from typing import Any

import pytest

from idlm_ds.engine.config import EngineJson
from idlm_ds.engine.dist import World
from idlm_ds.engine.json_fields import FIELDS
from idlm_ds.engine.json_values import Works
from idlm_ds.train.step import train_step

from . import toy
from .harness import run_ranks

pytestmark = pytest.mark.dist

PHASES = 6
ZERO = "zero_optimization"
ON_CPU = {"device": "cpu", "pin_memory": False}

OTHERS: dict[str, Any] = {
    "stage": None,
    "contiguous_gradients": False,
    "reduce_scatter": False,
    "reduce_bucket_size": 50,
    "use_multi_rank_bucket_allreduce": False,
    "allgather_bucket_size": 2,
    "overlap_comm": False,
    "sub_group_size": 200,
    "stage3_prefetch_bucket_size": 0,
    "stage3_param_persistence_threshold": 0,
    "stage3_model_persistence_threshold": 100,
    "stage3_max_live_parameters": 0,
    "stage3_max_reuse_distance": 500,
    "stage3_module_granularity_threshold": 10,
    "stage3_use_all_reduce_for_fetch_params": True,
    "stage3_allgather_sequential": True,
    "ignore_unused_parameters": False,
    "round_robin_gradients": True,
    "parameter_alignment": True,
    "memory_efficient_linear": False,
    "override_module_apply": False,
    "log_trace_cache_warnings": True,
    "enable_sanity_checks": True,
    "offload_optimizer": ON_CPU,
    "offload_param": ON_CPU,
}
"""For every field of ``zero_optimization`` a value that is not the toy's."""


def allowed(stage: int) -> dict[str, Any]:
    """Those of a stage, all at once."""
    fields = {}
    for name, value in OTHERS.items():
        dotted = f"{ZERO}.{name}" + (".device" if name.startswith("offload") else "")
        row = FIELDS[dotted]
        assert isinstance(row, Works), dotted
        if stage in row.stages and name != "stage":
            fields[name] = value
    return fields


def _losses(
    world: World, stage: int, zero: dict[str, Any], top: dict[str, Any], precision: str
) -> list[float]:
    toys = toy.engine_json(stage, **zero)
    json = EngineJson(toys.name, {**toys.fields, **top})
    program = toy.start_program(world, json, precision=precision)
    batches = toy.make_loader(world).batches(0, PHASES)
    return [train_step(program, s, b, is_logged=True).loss for s, b in enumerate(batches)]


def test_every_field_that_works_is_tried_below():
    tried = {f"{ZERO}.{name}" for name in OTHERS if not name.startswith("offload")}
    tried |= {f"{ZERO}.{name}.{key}" for name in OTHERS if "offload" in name for key in ON_CPU}
    tried |= {"communication_data_type", "data_types.grad_accum_dtype"}
    assert tried == {name for name, row in FIELDS.items() if isinstance(row, Works)}


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_other_values_of_all_fields_give_the_same_losses(stage: int):
    plain = run_ranks(_losses, 2, stage, {}, {}, "fp32")[0]
    other = run_ranks(_losses, 2, stage, allowed(stage), {}, "fp32")[0]
    assert other == pytest.approx(plain, rel=2e-6, abs=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("top", "precision", "error"),
    [
        ({"communication_data_type": "bf16"}, "fp32", 2e-4),
        ({"communication_data_type": "fp32"}, "bf16", 0.1),
        ({"data_types": {"grad_accum_dtype": "bf16"}}, "bf16", 0.1),
        ({"data_types": {"grad_accum_dtype": "fp32"}}, "bf16", 0.1),
    ],
)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_types_of_gradients_round_and_no_more(
    stage: int, top: dict[str, Any], precision: str, error: float
):
    plain = run_ranks(_losses, 2, stage, {}, {}, "fp32")[0]
    other = run_ranks(_losses, 2, stage, {}, top, precision)[0]
    assert other == pytest.approx(plain, abs=error)
