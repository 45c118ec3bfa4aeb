"""A rank that loads its part of a model of a billion parameters needs little beside it."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import idlm_ds
from idlm_ds.checkpoints.formats.plans import LLADA
from idlm_ds.checkpoints.formats.public import read_public
from idlm_ds.engine.config import read_engine_json
from idlm_ds.engine.dist import World
from idlm_ds.engine.role import start_frozen
from idlm_ds.models.llada import LLaDA, LLaDAConfig

from . import toy
from .harness import run_ranks

pytestmark = [pytest.mark.dist, pytest.mark.slow]

ZERO_3 = Path(idlm_ds.__file__).parents[1] / "ds_configs" / "zero3.json"
RANKS, SHARDS = 2, 6
CONFIG = {
    "model_type": "llada",
    "d_model": 2048,
    "n_layers": 16,
    "n_heads": 16,
    "mlp_hidden_size": 5632,
    "vocab_size": 50_304,
    "mask_token_id": 50_303,
}
SHAPES = LLADA.shapes({"vocab_size": 50_304, "hidden": 2048, "blocks": 16, "ffn": 5632})
PARAMETERS = sum(map(math.prod, SHAPES.values()))
WATCHED = ("model.transformer.wte.weight", "model.transformer.blocks.7.ff_out.weight")

BEYOND = 1.5e9
"""Bytes beside a rank's part: Python and its libraries, and whole tables as they are built."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two gigabytes of bfloat16, written shard by shard."""
    made = tmp_path_factory.mktemp("model")
    generator, places = torch.Generator().manual_seed(0), {}
    names = list(SHAPES)
    for i in range(SHARDS):
        file = f"model-{i + 1:05}-of-{SHARDS:05}.safetensors"
        places |= dict.fromkeys(names[i::SHARDS], file)
        blank = {name: torch.empty(SHAPES[name], dtype=torch.bfloat16) for name in names[i::SHARDS]}
        save_file(
            {n: t.normal_(std=0.02, generator=generator) for n, t in blank.items()}, made / file
        )
        del blank
    index = {"metadata": {}, "weight_map": places}
    (made / "model.safetensors.index.json").write_text(json.dumps(index))
    (made / "config.json").write_text(json.dumps(CONFIG))
    yield made
    shutil.rmtree(made)


def load(world: World, folder: Path, precision: str) -> dict[str, object]:
    model = read_public(folder)
    config = LLaDAConfig(**model.about.sizes)
    role = start_frozen(
        "teacher",
        lambda: LLaDA(config),
        model.weights,
        read_engine_json(ZERO_3),
        toy.numerics_of(world, precision=precision),
    )
    peak = peak_bytes()
    parts = {
        name: parameter.ds_tensor.clone()
        for name, parameter in role.module.named_parameters()
        if name in WATCHED
    }
    return {"peak": peak, "parts": parts}


def peak_bytes() -> int:
    """Most memory that this process ever had resident, mapped files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_rank_holds_its_part_and_not_the_whole(dtype: torch.dtype, folder: Path):
    assert 1.0e9 < PARAMETERS < 1.1e9
    precision = {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]
    ranks = run_ranks(load, RANKS, folder, precision, timeout_s=500)
    peaks = [rank["peak"] for rank in ranks]
    part = PARAMETERS * dtype.itemsize / RANKS
    print(
        f"{precision}: peaks of {[f'{p / 1e9:.2f}' for p in peaks]} GB, parts of {part / 1e9:.2f}"
    )
    assert all(part < peak < part + BEYOND for peak in peaks), peaks

    places = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    for name in WATCHED:
        with safe_open(folder / places[name], framework="pt") as file:
            whole = file.get_tensor(name).flatten().to(dtype)
        assert torch.equal(torch.cat([rank["parts"][name] for rank in ranks]), whole)
