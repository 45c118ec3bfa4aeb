"""Tiny files in the layouts of published models, written from the tables of their names."""

import contextlib
import json
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

N, D, C, HEADS, BLOCKS, LENGTH = 11, 24, 8, 3, 2, 16

DIT_SIZES = {
    "vocab_size": N, "hidden": D, "cond": C, "blocks": BLOCKS, "heads": HEADS, "mlp_ratio": 4,
}  # fmt: skip

Weights = dict[str, Tensor]


def dit_table() -> dict[str, tuple[int, ...]]:
    """Names and shapes, in the order in which a running mean lists them."""
    table: dict[str, tuple[int, ...]] = {
        "vocab_embed.embedding": (N, D),
        "sigma_map.mlp.0.weight": (C, 256),
        "sigma_map.mlp.0.bias": (C,),
        "sigma_map.mlp.2.weight": (C, C),
        "sigma_map.mlp.2.bias": (C,),
    }
    for i in range(BLOCKS):
        table |= {
            f"blocks.{i}.norm1.weight": (D,),
            f"blocks.{i}.attn_qkv.weight": (3 * D, D),
            f"blocks.{i}.attn_out.weight": (D, D),
            f"blocks.{i}.norm2.weight": (D,),
            f"blocks.{i}.mlp.0.weight": (4 * D, D),
            f"blocks.{i}.mlp.0.bias": (4 * D,),
            f"blocks.{i}.mlp.2.weight": (D, 4 * D),
            f"blocks.{i}.mlp.2.bias": (D,),
            f"blocks.{i}.adaLN_modulation.weight": (6 * D, C),
            f"blocks.{i}.adaLN_modulation.bias": (6 * D,),
        }
    return table | {
        "output_layer.norm_final.weight": (D,),
        "output_layer.linear.weight": (N, D),
        "output_layer.linear.bias": (N,),
        "output_layer.adaLN_modulation.weight": (2 * D, C),
        "output_layer.adaLN_modulation.bias": (2 * D,),
    }


def llada_table(ffn: int = 40) -> dict[str, tuple[int, ...]]:
    root = "model.transformer"
    table: dict[str, tuple[int, ...]] = {f"{root}.wte.weight": (N, D)}
    for i in range(BLOCKS):
        for name in ("q_proj", "k_proj", "v_proj", "attn_out"):
            table[f"{root}.blocks.{i}.{name}.weight"] = (D, D)
        table |= {
            f"{root}.blocks.{i}.ff_proj.weight": (ffn, D),
            f"{root}.blocks.{i}.up_proj.weight": (ffn, D),
            f"{root}.blocks.{i}.ff_out.weight": (D, ffn),
            f"{root}.blocks.{i}.attn_norm.weight": (D,),
            f"{root}.blocks.{i}.ff_norm.weight": (D,),
        }
    return table | {f"{root}.ln_f.weight": (D,), f"{root}.ff_out.weight": (N, D)}


def draw(table: dict[str, tuple[int, ...]], seed: int, dtype=torch.float32) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(shape, generator=generator).to(dtype) for n, shape in table.items()}


def with_prefix(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


INV_FREQ = {"rotary_emb.inv_freq": torch.ones(D // HEADS // 2)}


def hugging_face_config(**changes: Any) -> dict[str, Any]:
    config = {
        "model_type": "mdlm",
        "architectures": ["MDLM"],
        "auto_map": {"AutoConfig": "configuration_mdlm.MDLMConfig"},
        "vocab_size": N,
        "model_length": LENGTH,
        "hidden_dim": D,
        "cond_dim": C,
        "n_blocks": BLOCKS,
        "n_heads": HEADS,
        "dropout": 0.1,
        "time_conditioning": False,
    }
    return {k: v for k, v in (config | changes).items() if v is not None}


def training_config(**changes: Any) -> dict[str, Any]:
    model = {
        "hidden_size": D, "cond_dim": C, "length": LENGTH, "n_blocks": BLOCKS, "n_heads": HEADS,
        "dropout": 0.1, "scale_by_sigma": True,
    }  # fmt: skip
    return {"model": model, **changes}


def write_folder(folder: Path, config: dict[str, Any], weights: Weights) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    return folder


def write_shards(folder: Path, config: dict[str, Any], weights: Weights, count: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    names, places = sorted(weights), {}
    for i in range(count):
        file = f"model-{i + 1:05}-of-{count:05}.safetensors"
        places |= dict.fromkeys(names[i::count], file)
        save_file({name: weights[name] for name in names[i::count]}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def running_mean(mean: Weights, **changes: Any) -> dict[str, Any]:
    return {"decay": 0.9999, "num_updates": 7, "shadow_params": list(mean.values())} | changes


@contextlib.contextmanager
def modules(*names: str) -> Iterator[None]:
    """Modules that exist only while something is pickled."""
    added = [name for name in names if name not in sys.modules]
    sys.modules.update({name: ModuleType(name) for name in added})
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def stand_in(module: str, name: str, base: type = object) -> type:
    if not hasattr(sys.modules[module], name):
        setattr(sys.modules[module], name, type(name, (base,), {"__module__": module}))
    return getattr(sys.modules[module], name)


OMEGACONF = ("omegaconf", "omegaconf.dictconfig", "omegaconf.nodes", "omegaconf.base")
LIGHTNING = (
    "pytorch_lightning", "pytorch_lightning.utilities", "pytorch_lightning.utilities.parsing",
)  # fmt: skip


def as_omegaconf(tree: Any) -> Any:
    """A nested configuration with the attributes and class names that OmegaConf pickles."""
    made: Any
    if isinstance(tree, dict):
        made = stand_in("omegaconf.dictconfig", "DictConfig")()
        made._content = {key: as_omegaconf(value) for key, value in tree.items()}
    else:
        made = stand_in("omegaconf.nodes", "AnyNode")()
        made._val = tree
    made._metadata = stand_in("omegaconf.base", "ContainerMetadata")()
    made._metadata.__dict__ = {"ref_type": Any, "object_type": dict, "optional": True}
    made._flags_cache = defaultdict(dict)
    return made


@dataclass
class LightningFile:
    """What a training program based on Lightning saves."""

    raw: Weights = field(default_factory=lambda: draw(dit_table(), 1))
    mean: Weights | None = field(default_factory=lambda: draw(dit_table(), 2))
    config: dict[str, Any] | None = None
    tokenizer: Any = None
    prefix: str = "backbone."
    more: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Any) -> Any:
        with modules(*OMEGACONF, *LIGHTNING):
            torch.save(self.content(), path)
        return path

    def content(self) -> dict[str, Any]:
        hyper = stand_in(LIGHTNING[-1], "AttributeDict", dict)()
        if self.config is not None:
            hyper |= {"config": as_omegaconf(self.config), "tokenizer": self.tokenizer}
        named = with_prefix(self.prefix, {**self.raw, **INV_FREQ})
        teacher = with_prefix("teacher.", {"vocab_embed.embedding": torch.zeros(N, D)})
        state = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}
        content = {
            "epoch": 1,
            "global_step": 5,
            "pytorch-lightning_version": "2.2.1",
            "state_dict": OrderedDict(named | teacher),
            "loops": {"fit_loop": {"epoch_progress": {"current": {"completed": 1}}}},
            "optimizer_states": [
                {"state": state, "param_groups": [{"lr": 3e-4, "betas": (0.9, 1)}]}
            ],
            "lr_schedulers": [{"base_lrs": [3e-4], "lr_lambdas": [None]}],
            "hparams_name": "kwargs",
            "hyper_parameters": hyper,
            "sampler": {"random_state": None},
        }
        if self.mean is not None:
            content["ema"] = running_mean(self.mean)
        return content | self.more
