"""A model that cannot be used is refused in one line that says all that is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from idlm_ds.checkpoints.formats.public import detect, read_public
from idlm_ds.errors import UnsafeCheckpointError, UserError
from tests.checkpoints import published
from tests.checkpoints.models_on_disk import (
    LLADA_CONFIG,
    assert_same_bits,
    write_llada,
    write_mdlm,
    write_mdlm_in_shards,
    write_mdlm_pickled,
    write_own,
    write_sedd,
)
from tests.checkpoints.published import (
    LightningFile,
    N,
    dit_table,
    draw,
    hugging_face_config,
    running_mean,
    with_prefix,
    write_folder,
)


def one_line(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_public(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_all_that_is_wrong_is_in_one_message(tmp_path: Path):
    raw = draw(dit_table(), 1)
    del raw["sigma_map.mlp.0.bias"], raw["blocks.0.norm1.weight"], raw["blocks.1.norm1.weight"]
    raw["blocks.1.attn_out.weight"] = torch.zeros(published.D, 5)
    raw["output_layer.linear.bias"] = torch.zeros(N, dtype=torch.int64)
    raw["extra.thing"] = torch.zeros(1)
    mean = dict(list(draw(dit_table(), 2).items())[:-1])
    path = LightningFile(raw=raw, mean=mean).write(tmp_path / "last.ckpt")
    message = one_line(path)
    for part in (
        "missing sigma_map.mlp.0.bias, blocks.0-1.norm1.weight",
        "unexpected extra.thing",
        "blocks.1.attn_out.weight: shape [24, 5] instead of [24, 24]",
        "output_layer.linear.bias: not floating-point",
        "its running mean has 29 tensors, not 30",
    ):
        assert part in message


def test_a_network_without_blocks_is_refused(tmp_path: Path):
    raw = {n: w for n, w in draw(dit_table(), 1).items() if not n.startswith("blocks.")}
    path = LightningFile(raw=raw, mean=None).write(tmp_path / "last.ckpt")
    assert "nothing tells its blocks, inner" in one_line(path)


def test_tensors_without_elements_are_refused(tmp_path: Path):
    raw = {n: torch.zeros(tuple(0 for _ in shape)) for n, shape in dit_table().items()}
    path = LightningFile(raw=raw, mean=None).write(tmp_path / "last.ckpt")
    assert "nothing tells its cond, hidden, inner, vocab_size" in one_line(path)


def test_a_running_mean_in_another_order_is_refused(tmp_path: Path):
    mean = draw(dit_table(), 2)
    swapped = dict(reversed(mean.items()))
    path = LightningFile(mean=swapped).write(tmp_path / "last.ckpt")
    assert "in its running mean" in one_line(path)
    assert_same_bits(read_public(path, prefer_ema=False).weights, draw(dit_table(), 1))


def test_one_tensor_under_two_names_is_refused(tmp_path: Path):
    weights = draw(dit_table(), 1)
    doubled = with_prefix("backbone.", weights) | {"norm": torch.zeros(1)}
    doubled["vocab_embed.embedding"] = torch.zeros(N, published.D)
    path = write_folder(tmp_path / "model", hugging_face_config(), doubled)
    message = one_line(path)
    assert "there twice vocab_embed.embedding" in message
    assert "unexpected norm" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"n_blocks": 10**9}, {"n_blocks": 0}, {"n_blocks": -2}, {"n_blocks": True},
        {"n_blocks": "2"}, {"n_blocks": 2.0}, {"n_blocks": [2]}, {"n_heads": 5},
        {"n_heads": 10**6}, {"vocab_size": 10**20}, {"vocab_size": N + 1}, {"hidden_dim": 25},
        {"dropout": -1}, {"dropout": float("nan")}, {"time_conditioning": "yes"},
        {"model_length": {}}, {"cond_dim": 9}, {"n_blocks": 3}, {"n_blocks": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_configuration_that_contradicts_its_tensors_or_itself_is_refused(changes, tmp_path: Path):
    path, _ = write_mdlm(tmp_path / "model")
    (path / "config.json").write_text(json.dumps(hugging_face_config() | changes))
    one_line(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"alibi": True},
        {"scale_logits": True},
        {"n_kv_heads": 1},
        {"mlp_hidden_size": 41},
        {"mask_token_id": N},
    ],
    ids=str,
)
def test_llada_with_other_arithmetic_or_sizes_is_refused(changes, tmp_path: Path):
    path, _ = write_llada(tmp_path / "model")
    (path / "config.json").write_text(json.dumps(LLADA_CONFIG | changes))
    one_line(path)


@pytest.mark.parametrize("change", [{"kind": "gpt2"}, {"kind": None}, {"blocks": "2"}], ids=str)
def test_a_model_folder_with_another_network_is_refused(change, tmp_path: Path):
    path, _ = write_own(tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    config["network"] |= change
    (path / "config.json").write_text(json.dumps(config))
    one_line(path)


def test_a_model_folder_without_an_entry_is_refused(tmp_path: Path):
    path, _ = write_own(tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    del config["length"]
    (path / "config.json").write_text(json.dumps(config))
    one_line(path)


@pytest.mark.parametrize(
    "place", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "..", "weights.bin"]
)
def test_an_index_that_names_files_elsewhere_refuses_the_folder(place: str, tmp_path: Path):
    path, _ = write_mdlm_in_shards(tmp_path / "model")
    index = {"weight_map": {"backbone.vocab_embed.embedding": place}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsafeCheckpointError, match="not beside it"):
        read_public(path)


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}], ids=str)
def test_an_index_of_another_form_is_one_line(index, tmp_path: Path):
    path, _ = write_mdlm_in_shards(tmp_path / "model")
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="weight_map"):
        read_public(path)


def test_sedd_without_a_mask_is_refused(tmp_path: Path):
    path, _ = write_sedd(tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"graph": {"type": "uniform"}}))
    assert "graph.type" in one_line(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "[" * 100_000, '{"a": 1', "\x00", '{"n_blocks": ' + "9" * 5000]
)
def test_a_damaged_configuration_is_one_line(text: str, tmp_path: Path):
    path, _ = write_mdlm(tmp_path / "model")
    (path / "config.json").write_text(text)
    one_line(path)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [Path.unlink, cut_in_half, empty])
@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_mdlm, "model.safetensors"),
        (write_mdlm, "config.json"),
        (write_mdlm_in_shards, "model-00002-of-00003.safetensors"),
        (write_mdlm_in_shards, "model.safetensors.index.json"),
        (write_mdlm_pickled, "pytorch_model.bin"),
    ],
)
def test_a_damaged_folder_is_one_line(write, name: str, damage, tmp_path: Path):
    path, _ = write(tmp_path / "model")
    damage(path / name)
    with pytest.raises(UserError) as caught:
        read_public(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_shard_without_what_the_index_promises_is_named(tmp_path: Path):
    path, _ = write_mdlm_in_shards(tmp_path / "model")
    shard = path / "model-00001-of-00003.safetensors"
    tensors: dict[str, Tensor] = load_file(shard)
    lost = min(tensors)
    save_file({name: t for name, t in tensors.items() if name != lost}, shard)
    message = one_line(path)
    assert f"not in its shard {lost}" in message
    assert f"missing {lost.removeprefix('backbone.')}" in message


@pytest.mark.parametrize("name", ["notes.txt", "model/model.safetensors", "nowhere", "folder"])
def test_anything_else_is_told_from_the_known_layouts(name: str, tmp_path: Path):
    write_mdlm(tmp_path / "model")
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError) as caught:
        detect(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_pickle_of_something_else_names_the_known_layouts(tmp_path: Path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("other.pt", "list.pt"):
        assert "Lightning checkpoint" in one_line(tmp_path / name)


def test_of_a_file_of_weights_its_folder_is_asked_for(tmp_path: Path):
    path, _ = write_mdlm_pickled(tmp_path / "model")
    assert f"give its folder, {path}" in one_line(path / "pytorch_model.bin")


@pytest.mark.parametrize(
    "more",
    [
        {"state_dict": None},
        {"state_dict": {"backbone.x": 3}},
        {"state_dict": {7: torch.zeros(2)}},
        {"state_dict": {}},
        {"ema": running_mean(draw(dit_table(), 2), shadow_params=[1, 2, 3])},
    ],
    ids=lambda more: next(iter(more)),
)
def test_weights_of_another_form_are_one_line(more, tmp_path: Path):
    one_line(LightningFile(more=more).write(tmp_path / "last.ckpt"))
