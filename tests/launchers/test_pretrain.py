"""Teachers and judges are made by the same engine code."""

import json
import math
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from tests.launchers.conftest import ROOT, Toy, run

pytestmark = pytest.mark.dist


def arguments(toy: Toy, output, recipe: str, *more: str) -> list[str]:
    return [
        "--config",
        str(ROOT / "ds_configs" / "zero3.json"),
        "--recipe",
        recipe,
        "--output",
        str(output),
        f"data.corpus={toy.folder / 'corpus.jsonl'}",
        "data.heldout_every=2",
        "data.length=16",
        "model.hidden=32",
        "model.blocks=1",
        "model.heads=2",
        "train.steps=30",
        "train.global_batch=16",
        "train.micro_batch=8",
        "train.validate_every=30",
        "train.validation_windows=8",
        "optim.warmup_steps=1",
        "ema.decay=0.5",
        *more,
    ]


def lines_of(output) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def losses(output) -> list[float]:
    return [line["loss"] for line in lines_of(output) if line["phase"] == "pretrain"]


@pytest.mark.parametrize(
    "recipe", [pytest.param("pretrain_teacher", marks=pytest.mark.slow), "pretrain_judge"]
)
def test_a_network_learns_and_every_sink_is_told(recipe, toy, tmp_path):
    output = tmp_path / "run"
    sinks = ["log.tensorboard=true", "log.wandb=offline"]
    done = run("pretrain.py", arguments(toy, output, recipe, *sinks), ranks=2)
    assert done.code == 0, done.err
    assert len(list((output / "tensorboard").glob("events.*"))) == 1
    (offline,) = (output / "wandb").glob("offline-run-*/*.wandb")
    assert b"pretrain/loss" in offline.read_bytes()
    assert "WARNING" not in done.out + done.err
    assert done.out.count("kernels: ") == 1
    steps = losses(output)
    assert len(steps) == 30
    (heldout,) = (line for line in lines_of(output) if line["phase"] == "heldout")
    assert heldout["bits"] == pytest.approx(math.log2(math.exp(heldout["loss"])))
    assert heldout["ppl"] == pytest.approx(math.exp(heldout["loss"]))
    assert sum(steps[-5:]) < sum(steps[:5]) - 1.0
    if recipe == "pretrain_judge":
        judge = AutoModelForCausalLM.from_pretrained(output / "model", use_safetensors=True)
        assert judge.config.n_embd == 32
        assert judge.config.vocab_size == 2048
