"""The user's DeepSpeed JSON is read strictly, and the recipe decides what is computed."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from deepspeed.runtime.config import DeepSpeedConfig

import idlm_ds
from idlm_ds.engine.config import (
    AdamW,
    EngineJson,
    Numerics,
    check_agreement,
    read_engine_json,
)
from idlm_ds.errors import UserError

FILES = sorted((Path(idlm_ds.__file__).parents[1] / "ds_configs").glob("*.json"))
SHIPPED = [path for path in FILES if "offload" not in path.stem]
OFFLOADED = [path for path in FILES if "offload" in path.stem]
ADAM = AdamW(lr=3e-4, betas=(0.8, 0.95), eps=1e-7, weight_decay=0.1)


def numerics(*, precision: str = "bf16", clip: float = 0.0) -> Numerics:
    return Numerics(micro_batch=2, accumulation=3, world=4, precision=precision, clip=clip)


def refusal(folder: Path, text: str) -> str:
    # A short path, since a line has room for 200 characters.
    path = Path("zero.json")
    (folder / path).write_text(text, "utf-8")
    with contextlib.chdir(folder), pytest.raises(UserError) as error:
        read_engine_json(path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"--config {path}: ")
    return message.removeprefix(f"--config {path}: ")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_shipped_file_is_read_and_is_plain_deepspeed(path: Path):
    read = read_engine_json(path)
    parsed = DeepSpeedConfig({**json.loads(path.read_text()), "train_batch_size": 1})
    assert parsed.zero_config.stage == read.stage
    assert path.stem == f"zero{read.stage}" + ("_offload" if path in OFFLOADED else "")


def test_all_stages_are_shipped():
    assert [read_engine_json(path).stage for path in SHIPPED] == [1, 2, 3]
    assert [read_engine_json(path).stage for path in OFFLOADED] == [2, 3]


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"^--config: no such file: .*/nothing\.json$"):
        read_engine_json(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"zero_optimization": {"stage": 1},}', "not readable as JSON: "),
        ("", "not readable as JSON: "),
        ('{"aio": {}, "aio": {}}', "not readable as JSON: 'aio' appears twice"),
        (
            '{"zero_optimization": {"stage": 1, "stage": 2}}',
            "not readable as JSON: 'stage' appears twice",
        ),
        ("[1]", "expected an object, got list"),
    ],
)
def test_what_is_not_a_json_object_is_refused(text: str, complaint: str, tmp_path: Path):
    assert refusal(tmp_path, text).startswith(complaint)


@pytest.mark.parametrize("key", ["zero_optimisation", "zero_optimizations"])
def test_an_unknown_field_is_refused_with_a_suggestion(key: str, tmp_path: Path):
    text = json.dumps({key: {"stage": 1}})
    assert refusal(tmp_path, text) == f"{key}: unknown field; did you mean zero_optimization?"


def test_a_field_like_no_other_is_refused_with_a_list(tmp_path: Path):
    message = refusal(tmp_path, '{"qqq": 1, "zero_optimization": {"stage": 1}}')
    assert message.startswith("qqq: unknown field; known: ")
    assert "zero_optimization" in message


@pytest.mark.parametrize("stage", [0, 4, -1, "3", None, True, [3]])
def test_a_stage_that_cannot_be_right_is_refused(stage: Any, tmp_path: Path):
    message = refusal(tmp_path, json.dumps({"zero_optimization": {"stage": stage}}))
    assert message.startswith(f"zero_optimization.stage is {stage!r}; allowed: 1, 2, 3")


def test_stage_0_is_refused_with_its_reason(tmp_path: Path):
    message = refusal(tmp_path, '{"zero_optimization": {"stage": 0}}')
    assert "stage 0 uses another optimizer class and other numbers" in message


@pytest.mark.parametrize("text", ["{}", '{"zero_optimization": {}}', '{"zero_optimization": 3}'])
def test_an_absent_stage_is_refused(text: str, tmp_path: Path):
    assert refusal(tmp_path, text) == "zero_optimization.stage is required (1, 2 or 3)"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("reduce_bucketsize", "; did you mean reduce_bucket_size?"),
        ("stage3_prefetch_bucket", "; did you mean stage3_prefetch_bucket_size?"),
        ("qqq", ""),
    ],
)
def test_an_unknown_zero_key_is_refused(key: str, hint: str, tmp_path: Path):
    message = refusal(tmp_path, json.dumps({"zero_optimization": {"stage": 3, key: 1}}))
    assert message == f"zero_optimization.{key}: unknown field{hint}"


def test_an_ill_typed_zero_value_is_refused(tmp_path: Path):
    zero = {"stage": 2, "reduce_bucket_size": "big"}
    message = refusal(tmp_path, json.dumps({"zero_optimization": zero}))
    field = "zero_optimization.reduce_bucket_size"
    assert message == f"{field}: must be a whole number from 1 to 1e10, got 'big'"


AGREEING = {
    "train_micro_batch_size_per_gpu": 2,
    "train_batch_size": 24,
    "gradient_accumulation_steps": 3,
    "gradient_clipping": 0.5,
    "bf16": {"enabled": True},
    "fp16": {"enabled": False},
}
RECIPE_KEYS = {
    "train_micro_batch_size_per_gpu": "train.micro_batch",
    "train_batch_size": "train.global_batch",
    "gradient_accumulation_steps": "train.global_batch and train.micro_batch",
    "gradient_clipping": "optim.clip",
    "bf16": "train.precision",
    "fp16": "train.precision",
}


def engine_json(**fields: Any) -> EngineJson:
    return EngineJson("my.json", {"zero_optimization": {"stage": 2}, **fields})


def test_a_json_that_repeats_the_recipe_is_accepted():
    check_agreement(engine_json(), numerics(clip=0.5))
    check_agreement(engine_json(**AGREEING), numerics(clip=0.5))


@pytest.mark.parametrize("key", AGREEING)
def test_a_contradiction_names_both_sides(key: str):
    wrong = {"enabled": key == "fp16"} if key.endswith("16") else 7
    with pytest.raises(UserError) as error:
        check_agreement(engine_json(**{**AGREEING, key: wrong}), numerics(clip=0.5))
    message = str(error.value)
    assert message.startswith(f"my.json: {key} is {wrong!r} but the recipe's {RECIPE_KEYS[key]} ")
    assert f"makes it {AGREEING[key]!r};" in message


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("train_micro_batch_size_per_gpu", True),
        ("train_batch_size", "24"),
        ("bf16", {"enabled": 1}),
        ("fp16", {"enabled": 0}),
        ("bf16", {"enabled": True, "immediate_grad_update": True}),
        ("gradient_clipping", "auto"),
    ],
)
def test_what_only_looks_like_the_recipes_value_is_refused(key: str, wrong: Any):
    with pytest.raises(UserError, match=rf"^my\.json: {key} is "):
        check_agreement(engine_json(**{**AGREEING, key: wrong}), numerics(clip=0.5))


def test_gradients_add_up_in_bf16_in_bf16_runs_only():
    json = engine_json(data_types={"grad_accum_dtype": "bf16"})
    check_agreement(json, numerics())
    with pytest.raises(UserError, match=r"^my\.json: data_types\.grad_accum_dtype is 'bf16' but "):
        check_agreement(json, numerics(precision="fp32"))


@pytest.mark.parametrize(
    ("key", "recipe_key"),
    [
        ("activation_checkpointing", "train.checkpoint_activations"),
        ("steps_per_print", "log.every"),
        ("wandb", "log.wandb"),
        ("torch_autocast", "train.precision"),
    ],
)
def test_what_has_a_key_in_the_recipe_names_it(key: str, recipe_key: str):
    with pytest.raises(UserError) as error:
        check_agreement(engine_json(**{key: {}}), numerics())
    assert str(error.value) == f"my.json: {key}: belongs to the recipe ({recipe_key}); remove it"


@pytest.mark.parametrize("key", ["optimizer", "scheduler"])
def test_what_belongs_to_the_recipe_alone_is_refused(key: str):
    with pytest.raises(UserError, match=rf"^my\.json: {key}: belongs to the recipe \(optim\.\*\)"):
        check_agreement(engine_json(**{key: {"type": "AdamW"}}), numerics())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("clip", [0.0, 0.3])
def test_deepspeed_understands_a_trained_role_as_meant(path: Path, precision: str, clip: float):
    fields = read_engine_json(path).trained(numerics(precision=precision, clip=clip), ADAM)
    assert fields["gradient_clipping"] == clip  # explicit, also when it is 0
    parsed = DeepSpeedConfig(fields)
    assert parsed.gradient_clipping == clip
    assert parsed.gradient_accumulation_steps == 1
    assert parsed.managed_gradient_accumulation is False
    assert parsed.train_micro_batch_size_per_gpu == 2
    assert parsed.bfloat16_config.enabled is (precision == "bf16")
    assert parsed.float16_config.enabled is False
    assert parsed.optimizer_name == "adamw"
    assert parsed.optimizer_params == {
        "lr": 3e-4, "betas": [0.8, 0.95], "eps": 1e-7, "weight_decay": 0.1, "torch_adam": True,
        "fused": True,
    }  # fmt: skip
    assert parsed.scheduler_name is None
    accumulator = "fp32" if precision == "bf16" and parsed.zero_config.stage > 1 else None
    assert parsed.grad_accum_dtype == accumulator


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_frozen_role_is_sharded_at_stage_3_and_replicated_below(path: Path):
    fields = read_engine_json(path).frozen(numerics())
    parsed = DeepSpeedConfig(fields)
    assert parsed.zero_config.stage == (3 if path.stem == "zero3" else 0)
    assert parsed.optimizer_name is None


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
@pytest.mark.parametrize(("precision", "stage"), [("fp32", 1), ("bf16", 2)])
def test_stage_3_becomes_a_lower_one_on_one_rank_only(path: Path, precision: str, stage: int):
    file = read_engine_json(path)
    assert file.in_world(2, precision) is file
    alone = file.in_world(1, precision)
    assert alone.name == file.name
    assert alone.stage == (stage if file.stage == 3 else file.stage)
    if file.stage == 3:
        assert alone.fields["zero_optimization"] == {
            "stage": stage,
            "reduce_bucket_size": file.fields["zero_optimization"]["reduce_bucket_size"],
        }
    assert DeepSpeedConfig(alone.trained(numerics(), ADAM)).zero_config.stage == alone.stage
    for key in ("offload_param", "offload_optimizer"):
        fields = {**file.fields["zero_optimization"], key: {"device": "cpu"}}
        offloaded = EngineJson("my.json", {"zero_optimization": fields})
        assert offloaded.in_world(1, precision) is offloaded


def test_a_frozen_role_does_not_offload_an_optimizer_it_has_not():
    zero = {"stage": 3, "offload_optimizer": {"device": "cpu"}}
    read = EngineJson("my.json", {"zero_optimization": zero})
    assert "offload_optimizer" not in read.frozen(numerics())["zero_optimization"]
    assert read.trained(numerics(), ADAM)["zero_optimization"] == zero


def test_the_global_batch_in_a_json_is_not_passed_on():
    read = engine_json(**AGREEING)
    assert "train_batch_size" not in read.trained(numerics(), ADAM)


def test_a_users_data_types_win():
    read = engine_json(data_types={"grad_accum_dtype": "bf16"})
    fields = read.trained(numerics(), ADAM)
    assert fields["data_types"] == {"grad_accum_dtype": "bf16"}
