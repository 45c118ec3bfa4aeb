"""Every layout gives back the bits that were written, in any slices, and says what it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from idlm_ds.checkpoints.formats.description import RunningMean
from idlm_ds.checkpoints.formats.public import detect, read_public
from idlm_ds.engine.weights import fill_weights
from idlm_ds.models.dit import DiT, DiTConfig
from tests.checkpoints import published
from tests.checkpoints.models_on_disk import (
    Written,
    assert_same_bits,
    write_duo_twice_wrapped,
    write_lightning,
    write_lightning_without_configuration,
    write_llada,
    write_mdlm,
    write_mdlm_in_bfloat16,
    write_mdlm_in_shards,
    write_mdlm_pickled,
    write_own,
    write_own_llada,
    write_sdtt,
    write_sdtt_from_hugging_face,
    write_sedd,
    write_sedd_training,
)
from tests.checkpoints.published import (
    DIT_SIZES,
    INV_FREQ,
    LENGTH,
    LightningFile,
    N,
    dit_table,
    draw,
    hugging_face_config,
    training_config,
    with_prefix,
    write_folder,
)

DIT = {"kind": "dit", "vocab_size": N, "length": LENGTH, "dtype": "float32", "is_ema": False}
UNTOLD = {k: v for k, v in DIT_SIZES.items() if k != "dropout"}

CASES: dict[Callable[[Path], Written], dict[str, Any]] = {
    write_own: DIT
    | {
        "layout": "idlm_ds",
        "family": "sedd",
        "mask_id": N - 1,
        "stripped": (),
        "ignored": (),
        "sizes": DIT_SIZES | {"dropout": 0.0, "time_conditioning": True},
    },
    write_own_llada: {"layout": "idlm_ds", "kind": "llada", "mask_id": N - 1, "length": LENGTH},
    write_mdlm: DIT
    | {
        "layout": "hugging_face",
        "family": "mdlm",
        "mask_id": N - 1,
        "stripped": ("backbone.",),
        "ignored": ("backbone.rotary_emb.inv_freq",),
        "sizes": DIT_SIZES | {"dropout": 0.1, "time_conditioning": False},
    },
    write_mdlm_in_bfloat16: DIT | {"dtype": "bfloat16"},
    write_duo_twice_wrapped: DIT
    | {
        "family": "duo",
        "mask_id": None,
        "stripped": ("backbone._orig_mod.backbone.",),
        "sizes": DIT_SIZES | {"dropout": 0.1, "time_conditioning": True},
    },
    write_mdlm_in_shards: DIT | {"layout": "hugging_face", "ignored": ()},
    write_mdlm_pickled: DIT | {"layout": "hugging_face", "mask_id": N - 1},
    write_sedd: DIT
    | {
        "layout": "sedd",
        "family": "sedd",
        "mask_id": N - 1,
        "stripped": (),
        "sizes": DIT_SIZES | {"dropout": 0.1, "time_conditioning": True},
    },
    write_sdtt: DIT | {"layout": "sdtt", "family": "mdlm", "mask_id": N - 1},
    write_sdtt_from_hugging_face: DIT
    | {
        "layout": "sdtt",
        "stripped": ("backbone.backbone.",),
        "ignored": ("teacher.x",),
        "sizes": DIT_SIZES | {"dropout": 0.1, "time_conditioning": False},
    },
    write_lightning: DIT
    | {
        "layout": "lightning",
        "family": "duo",
        "mask_id": None,
        "is_ema": True,
        "ema": RunningMean(0.9999, 7),
        "stripped": ("backbone.",),
        "ignored": ("teacher.vocab_embed.embedding", "backbone.rotary_emb.inv_freq"),
        "sizes": DIT_SIZES | {"dropout": 0.1, "time_conditioning": True},
    },
    write_lightning_without_configuration: DIT
    | {
        "family": None,
        "mask_id": None,
        "length": None,
        "ema": None,
        "stripped": ("backbone._orig_mod.",),
        "sizes": UNTOLD,
    },
    write_sedd_training: DIT
    | {
        "layout": "sedd_training",
        "family": "sedd",
        "mask_id": N - 1,
        "length": None,
        "is_ema": True,
        "sizes": UNTOLD | {"time_conditioning": True},
    },
    write_llada: {
        "layout": "llada",
        "kind": "llada",
        "family": "mdlm",
        "vocab_size": N,
        "mask_id": 9,
        "length": 64,
        "dtype": "bfloat16",
        "sizes": {
            "vocab_size": N,
            "hidden": published.D,
            "blocks": 2,
            "heads": 3,
            "ffn": 40,
            "rope_base": 500000.0,
            "norm_eps": 1e-5,
        },
    },
}


@pytest.mark.parametrize("write", CASES, ids=lambda w: w.__name__.removeprefix("write_"))
def test_a_layout_is_recognised_described_and_read_bit_for_bit(write, tmp_path: Path):
    path, weights = write(tmp_path / "model")
    model = read_public(path)
    assert_same_bits(model.weights, weights)
    assert model.about.parameters == sum(w.numel() for w in weights.values())
    told = {name: getattr(model.about, name) for name in CASES[write]}
    assert told == CASES[write]
    assert detect(path) == model.about.layout
    assert all(file.is_file() for file in model.about.files)


def test_all_opened_files_are_listed(tmp_path: Path):
    path, _ = write_llada(tmp_path / "model")
    assert {file.name for file in read_public(path).about.files} == {
        "config.json",
        "model.safetensors.index.json",
        *(f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)),
    }


@pytest.mark.parametrize("write", [write_lightning, write_sedd_training])
def test_raw_weights_can_be_asked_for(write, tmp_path: Path):
    path, _ = write(tmp_path / "model")
    model = read_public(path, prefer_ema=False)
    assert_same_bits(model.weights, draw(dit_table(), 1))
    assert not model.about.is_ema
    assert model.about.ema == RunningMean(0.9999, 7)


def test_sizes_told_nowhere_come_from_shapes(tmp_path: Path):
    path, weights = write_mdlm(tmp_path / "model")
    told = {"model_type": "mdlm", "hidden_dim": published.D, "n_blocks": 2}
    (path / "config.json").write_text(json.dumps(told))
    about = read_public(path).about
    assert about.sizes == UNTOLD | {"time_conditioning": False}
    assert_same_bits(read_public(path).weights, weights)


def test_references_in_a_configuration_are_not_followed(tmp_path: Path):
    model = {"hidden_size": "${other}", "n_heads": "???", "n_blocks": None, "length": "${..x}"}
    file = LightningFile(config={"model": model, "algo": {"name": "duo"}})
    about = read_public(file.write(tmp_path / "last.ckpt")).about
    assert about.sizes == UNTOLD | {"time_conditioning": True}
    assert about.length is None


def test_a_lightning_file_without_a_prefix_is_read_too(tmp_path: Path):
    model = read_public(LightningFile(prefix="").write(tmp_path / "last.ckpt"))
    assert_same_bits(model.weights, draw(dit_table(), 2))
    assert model.about.stripped == ()
    assert model.about.ignored == ("teacher.vocab_embed.embedding", "rotary_emb.inv_freq")


def test_what_stands_beside_the_network_is_not_read(tmp_path: Path):
    state = with_prefix("backbone.", draw(dit_table(), 1) | INV_FREQ)
    beside = {"noise.sigmas": torch.zeros(2), "metrics.nll.mean": torch.zeros(())}
    file = LightningFile(more={"state_dict": state | beside})
    about = read_public(file.write(tmp_path / "last.ckpt")).about
    assert about.ignored == (*beside, "backbone.rotary_emb.inv_freq")


def test_a_network_is_filled(tmp_path: Path):
    path, weights = write_lightning(tmp_path / "model")
    model = read_public(path)
    network = DiT(DiTConfig(**model.about.sizes))
    fill_weights(network, model.weights)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter.detach(), weights[name])


@pytest.mark.parametrize(
    ("config", "family", "told_time", "mask"),
    [
        ({"parameterization": "subs", "time_conditioning": False}, "mdlm", False, N - 1),
        ({"parameterization": "sedd", "time_conditioning": True}, "sedd", True, N - 1),
        ({"algo": {"name": "sedd"}}, "sedd", True, N - 1),
        ({"algo": {"name": "distillation", "time_conditioning": True}}, "duo", True, None),
        ({"algo": {"name": "ar"}}, None, None, None),
        ({"parameterization": "${algo.name}"}, None, None, None),
    ],
)
def test_what_a_training_configuration_tells(config, family, told_time, mask, tmp_path: Path):
    path = LightningFile(config=training_config(**config)).write(tmp_path / "last.ckpt")
    about = read_public(path).about
    assert (about.family, about.mask_id) == (family, mask)
    assert about.sizes.get("time_conditioning") == told_time
    assert about.length == LENGTH


def test_the_mask_of_bert_is_in_the_middle_of_its_vocabulary(tmp_path: Path):
    tensors = draw(dit_table(), 1)
    for name in ("vocab_embed.embedding", "output_layer.linear.weight"):
        tensors[name] = torch.zeros(30522, published.D)
    tensors["output_layer.linear.bias"] = torch.zeros(30522)
    path = write_folder(tmp_path / "model", hugging_face_config(vocab_size=30522), tensors)
    assert read_public(path).about.mask_id == 103


@pytest.mark.parametrize("ema", [None, {}, {"shadow_params": []}, [1], "mean"], ids=str)
def test_without_a_running_mean_the_weights_are_used(ema, tmp_path: Path):
    path = LightningFile(more={"ema": ema}).write(tmp_path / "last.ckpt")
    model = read_public(path)
    assert model.about.ema is None
    assert not model.about.is_ema
    assert_same_bits(model.weights, draw(dit_table(), 1))
