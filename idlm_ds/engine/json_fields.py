"""What a file may set of DeepSpeed's configuration: a row for each field of the schema of 0.19.8.

A row of a section stands for all fields in it. ``docs/deepspeed_json.md`` shows this table, and a
test compares it with the schema of the installed DeepSpeed.
"""

from collections.abc import Mapping

from idlm_ds.engine.json_values import Flag, Ours, Rejected, Row, Whole, Word, Works

_NVME = "NVMe is not supported: the fp32 weights it moves could not be averaged or saved"
_WRONG_MEAN = "averages need no factor, and at stage 3 DeepSpeed 0.19.8 is wrong with one"
_OWN_FILES = "checkpoints are this project's own, written by name and range"
_OWN_LOADER = "data comes from this project's loader"
_NO_EXPERTS = "no network here has experts"
_CLEAN_GAP = "rounding would drown the gap, which is a small difference"
_GONE = "removed from DeepSpeed; it would be ignored"
_OLD_NAME = "deprecated in DeepSpeed; write {}"
_SILENT = "prints through DeepSpeed's log, which is off; see tools/profile_step.py"
_NO_SEQUENCES = "no sequence parallelism here: docs/deepspeed_json.md says why"

_AMOUNT = Whole(0)
_BELOW_3, _STAGE_3 = (1, 2), (3,)

_TOP: dict[str, Row] = {
    "communication_data_type": Works(
        Word(("fp32", "bf16")), "type in which gradients are exchanged; default: theirs"
    ),
    "train_batch_size": Ours("train.global_batch", may_repeat=True),
    "train_micro_batch_size_per_gpu": Ours("train.micro_batch", may_repeat=True),
    "gradient_accumulation_steps": Ours(
        "train.global_batch and train.micro_batch", may_repeat=True
    ),
    "gradient_clipping": Ours("optim.clip", may_repeat=True),
    "bf16": Ours("train.precision", may_repeat=True),
    "fp16": Ours("train.precision", may_repeat=True),
    "bfloat16": Ours("train.precision"),
    "torch_autocast": Ours("train.precision"),
    "optimizer": Ours("optim.*"),
    "scheduler": Ours("optim.*"),
    "activation_checkpointing": Ours("train.checkpoint_activations"),
    "steps_per_print": Ours("log.every"),
    "tensorboard": Ours("log.tensorboard"),
    "wandb": Ours("log.wandb"),
    "managed_gradient_accumulation": Rejected("the training step accumulates by itself"),
    "gradient_allreduce_op": Rejected("gradients are means over train.global_batch"),
    "prescale_gradients": Rejected("averages of float32 and bf16 gradients do not overflow"),
    "gradient_predivide_factor": Rejected(_WRONG_MEAN),
    "zero_allow_untested_optimizer": Rejected("set for every engine"),
    "zero_force_ds_cpu_optimizer": Rejected("the optimizer follows from device and offload"),
    "disable_allgather": Rejected("DeepSpeed reads it and does nothing with it"),
    "dump_state": Rejected(_SILENT),
    "log_level": Rejected("the environment decides: DEEPSPEED_LOG_LEVEL"),
    "disable_python_gc": Rejected("nothing here would collect in its place"),
    "vocabulary_size": Rejected("DeepSpeed only warns of sizes; the teacher has its own"),
    "wall_clock_breakdown": Rejected(_SILENT),
    "memory_breakdown": Rejected("prints at every pass of three engines; metrics.jsonl has memory"),
    "seq_parallel_communication_data_type": Rejected(_NO_SEQUENCES),
    "sequence_parallel_size": Rejected(_NO_SEQUENCES),
    "use_data_before_expert_parallelism": Rejected(_NO_EXPERTS),
    "expert_parallel": Rejected(_NO_EXPERTS),
    "dataloader_drop_last": Rejected(_OWN_LOADER),
    "data_efficiency": Rejected(_OWN_LOADER),
    "csv_monitor": Rejected("metrics.jsonl has the same; log.tensorboard and log.wandb are sinks"),
    "comet": Rejected("not supported; log.tensorboard and log.wandb are sinks"),
    "flops_profiler": Rejected("counts torch's functions only; metrics.jsonl has MFU"),
    "comms_logger": Rejected(_SILENT),
    "timers": Rejected("DeepSpeed's throughput timer logs nothing here; see metrics.jsonl"),
    "autotuning": Rejected("launches other programs; compare settings with tools/bench_step.py"),
    "aio": Rejected("belongs to NVMe offload, which is not supported"),
    "checkpoint": Rejected(_OWN_FILES),
    "datastates_ckpt": Rejected(_OWN_FILES),
    "weight_quantization": Rejected("for inference engines; " + _CLEAN_GAP),
    "compile": Rejected("DeepCompile drops the hooks that three engines rest on"),
    "tensor_parallel": Rejected("not supported: every rank computes whole layers"),
    "pipeline": Rejected("no network here is a pipeline"),
    "hybrid_engine": Rejected("for generation by causal models"),
    "allgather_size": Rejected(_OLD_NAME.format("zero_optimization.allgather_bucket_size")),
}

_REMOVED = (
    *("amp", "compression_training", "curriculum_learning", "eigenvalue", "elasticity"),
    *("graph_harvesting", "nebula", "progressive_layer_drop", "quantize_training"),
    *("sparse_attention", "sparse_gradients"),
)

_DATA_TYPES: dict[str, Row] = {
    "grad_accum_dtype": Works(
        Word(("fp32", "bf16")),
        "type in which gradients add up; default: fp32, at stage 1 in bf16 runs bf16",
    ),
    "param_dtype": Rejected("the recipe decides: train.precision"),
    "buffer_dtype": Rejected("networks keep no state in buffers"),
    "keep_in_fp32_modules": Rejected("networks keep no state in buffers"),
}

_ZERO: dict[str, Row] = {
    "stage": Works(
        Whole(1, most=3), "what is sharded: 1 optimizer state, 2 gradients too, 3 weights too"
    ),
    "contiguous_gradients": Works(Flag(), "gradients are copied to one buffer as they come"),
    "reduce_scatter": Works(Flag(), "gradients are reduced to their owner, not to all"),
    "reduce_bucket_size": Works(
        Whole(1, most=10**10), "elements reduced at a time; a buffer of them is allocated"
    ),
    "use_multi_rank_bucket_allreduce": Works(
        Flag(), "buckets of several ranks are reduced together", _BELOW_3
    ),
    "allgather_partitions": Rejected("DeepSpeed reads it and does nothing with it"),
    "allgather_bucket_size": Works(
        Whole(2, multiple=2), "elements gathered at a time after an update", _BELOW_3
    ),
    "overlap_comm": Works(Flag(), "gradients are reduced while the backward pass runs", (2, 3)),
    "compute_grad_norm": Rejected("the norm clips gradients and goes into metrics.jsonl"),
    "load_from_fp32_weights": Rejected(_OWN_FILES),
    "elastic_checkpoint": Rejected(_OWN_FILES),
    "zenflow": Rejected("delayed updates would blur the fake's and the student's time scales"),
    "sub_group_size": Works(Whole(1), "elements updated by the optimizer at a time", _STAGE_3),
    "cpu_offload": Rejected(_OLD_NAME.format("offload_optimizer")),
    "cpu_offload_param": Rejected(_OLD_NAME.format("offload_param")),
    "cpu_offload_use_pin_memory": Rejected(_OLD_NAME.format("pin_memory in offload_*")),
    "stage3_prefetch_bucket_size": Works(_AMOUNT, "elements fetched ahead of use", _STAGE_3),
    "stage3_param_persistence_threshold": Works(
        _AMOUNT, "tensors up to this many elements stay whole", _STAGE_3
    ),
    "stage3_model_persistence_threshold": Works(
        _AMOUNT, "elements that stay whole in all", _STAGE_3
    ),
    "stage3_max_live_parameters": Works(_AMOUNT, "elements gathered at once, about", _STAGE_3),
    "stage3_max_reuse_distance": Works(
        _AMOUNT, "keep a tensor that is used again within so many elements", _STAGE_3
    ),
    "stage3_module_granularity_threshold": Works(
        _AMOUNT, "modules of fewer elements a submodule are gathered as one", _STAGE_3
    ),
    "stage3_use_all_reduce_for_fetch_params": Works(
        Flag(), "gather by summing instead of concatenating", _STAGE_3
    ),
    "stage3_allgather_sequential": Works(Flag(), "gather tensors one by one", _STAGE_3),
    "stage3_gather_16bit_weights_on_model_save": Rejected(_OWN_FILES),
    "stage3_gather_fp16_weights_on_model_save": Rejected(_OWN_FILES),
    "ignore_unused_parameters": Works(
        Flag(), "false: stop where a parameter got no gradient", _BELOW_3
    ),
    "legacy_stage1": Rejected(_GONE),
    "round_robin_gradients": Works(Flag(), "parameters go to ranks in turn", _BELOW_3),
    "parameter_alignment": Works(Flag(), "parameters start at multiples of 16 bytes", _BELOW_3),
    "zero_hpz_partition_size": Rejected(
        "hpZ is not supported: one node group for three engines fails in DeepSpeed 0.19.8"
    ),
    "zero_quantized_weights": Rejected("qwZ is not supported: " + _CLEAN_GAP),
    "zero_quantized_nontrainable_weights": Rejected("not supported: " + _CLEAN_GAP),
    "zero_quantized_gradients": Rejected(
        "qgZ is not supported: quantised gradients of the gap, which is small, are noise"
    ),
    "memory_efficient_linear": Works(
        Flag(), "linear layers keep no gathered weight for the backward pass", _STAGE_3
    ),
    "pipeline_loading_checkpoint": Rejected(_OWN_FILES),
    "override_module_apply": Works(
        Flag(), "Module.apply gathers the weights it is applied to", _STAGE_3
    ),
    "log_trace_cache_warnings": Works(
        Flag(), "print when the order of modules is not the recorded one", _STAGE_3
    ),
    "enable_sanity_checks": Works(Flag(), "compare ranks at every exchange; slow", _STAGE_3),
    "save_muon_momentum_buffer_in_memory": Rejected("for Muon; the optimizer is AdamW"),
    "leaf_module": Rejected("for experts; stage3_module_granularity_threshold joins small modules"),
    "mics_shard_size": Rejected(_GONE),
    "mics_hierarchical_params_gather": Rejected(_GONE),
    "zeropp_loco_param": Rejected(_GONE),
}

_OFFLOAD_OPTIMIZER: dict[str, Row] = {
    "device": Works(Word(("cpu", "none")), "where fp32 weights and Adam's moments are", why=_NVME),
    "pin_memory": Works(Flag(), "page-locked memory, for copies from and to a GPU"),
    "nvme_path": Rejected(_NVME),
    "buffer_count": Rejected(_NVME),
    "pipeline_read": Rejected(_NVME),
    "pipeline_write": Rejected(_NVME),
    "fast_init": Rejected(_NVME),
    "ratio": Rejected("all of the optimizer is offloaded, or none"),
    "super_offload": Rejected("for superchips; its optimizer keeps no state that is saved here"),
    "cpuadam_cores_perc": Rejected("belongs to super_offload"),
}

_OFFLOAD_PARAM: dict[str, Row] = {
    "device": Works(Word(("cpu", "none")), "where shards of the weights are", _STAGE_3, why=_NVME),
    "pin_memory": Works(Flag(), "page-locked memory, for copies to a GPU", _STAGE_3),
    "nvme_path": Rejected(_NVME),
    "buffer_count": Rejected(_NVME),
    "buffer_size": Rejected(_NVME),
    "max_in_cpu": Rejected(_NVME),
}


_PREFIX = "stage3_"
_SHORT: dict[str, Row] = {
    name.removeprefix(_PREFIX): Rejected(f"write {name}")
    for name in _ZERO
    if name.startswith(_PREFIX) and "fp16" not in name
}


def _under(section: str, rows: Mapping[str, Row]) -> dict[str, Row]:
    return {f"{section}.{name}": row for name, row in rows.items()}


FIELDS: Mapping[str, Row] = {
    **_under("zero_optimization", _ZERO | _SHORT),
    **_under("zero_optimization.offload_optimizer", _OFFLOAD_OPTIMIZER),
    **_under("zero_optimization.offload_param", _OFFLOAD_PARAM),
    **_under("data_types", _DATA_TYPES),
    **_TOP,
    **dict.fromkeys(_REMOVED, Rejected(_GONE)),
}
"""Dotted names of fields, and of sections that are refused or decided as a whole."""

SECTIONS = {".".join(name.split(".")[:i]) for name in FIELDS for i in range(1, name.count(".") + 1)}
"""Dotted names of sections whose fields have rows of their own."""

HANDED_ON = {name.split(".")[0] for name, row in FIELDS.items() if isinstance(row, Works)}
"""Top-level fields of which something is handed on to DeepSpeed."""

DECIDED = {name: row for name, row in FIELDS.items() if isinstance(row, Ours)}
"""Fields that the recipe decides."""
