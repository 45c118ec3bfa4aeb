"""What is read from one layout and written in another is the same model, or is not written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from idlm_ds.checkpoints.conversion import ConversionOptions, Outcome, convert
from idlm_ds.checkpoints.formats.description import Description, RunningMean
from idlm_ds.checkpoints.formats.public import read_public
from idlm_ds.engine.weights import fill_weights
from idlm_ds.errors import UserError
from idlm_ds.models.dit import DiT, DiTConfig
from idlm_ds.registry.networks import NETWORKS
from idlm_ds.registry.table import load
from tests.checkpoints import models_on_disk as disk
from tests.checkpoints.models_on_disk import Written, assert_same_bits
from tests.checkpoints.published import (
    BLOCKS,
    HEADS,
    LENGTH,
    D,
    N,
    Weights,
    dit_table,
    draw,
    hugging_face_config,
    llada_table,
    training_config,
    with_prefix,
    write_folder,
)
from tests.models import reference
from tests.models.test_dit import by_the_book

MASKED = ("idlm_ds", "hugging_face", "sdtt", "lightning")
ALL_OF_DIT = (*MASKED, "sedd", "sedd_training")
UNIFORM = ("idlm_ds", "hugging_face", "lightning")
OF_LLADA = ("idlm_ds", "llada")

SENSIBLE: dict[Callable[[Path], Written], tuple[str, ...]] = {
    disk.write_own: ALL_OF_DIT,
    disk.write_own_llada: OF_LLADA,
    disk.write_mdlm: MASKED,
    disk.write_mdlm_in_bfloat16: MASKED,
    disk.write_duo_twice_wrapped: UNIFORM,
    disk.write_mdlm_in_shards: MASKED,
    disk.write_mdlm_pickled: MASKED,
    disk.write_sedd: ALL_OF_DIT,
    disk.write_sdtt: MASKED,
    disk.write_sdtt_from_hugging_face: MASKED,
    disk.write_lightning: UNIFORM,
    disk.write_lightning_without_configuration: MASKED,
    disk.write_sedd_training: ALL_OF_DIT,
    disk.write_llada: OF_LLADA,
}
UNTOLD = {
    disk.write_lightning_without_configuration: {"family": "mdlm", "length": LENGTH},
    disk.write_sedd_training: {"length": LENGTH},
}

PAIRS = [(write, to) for write, targets in SENSIBLE.items() for to in targets]
PREFIX = {"hugging_face": "backbone.", "sdtt": "backbone.", "lightning": "backbone."}
HALF = D // HEADS // 2
FREQUENCIES = torch.tensor([10_000.0 ** (-k / HALF) for k in range(HALF)])


def target_of(root: Path, layout: str) -> Path:
    return root / {"lightning": "there.ckpt", "sedd_training": "there.pth"}.get(layout, "there")


def convert_to(layout: str, source: Path, root: Path, **wish: Any) -> tuple[Path, Outcome]:
    target = target_of(root, layout)
    return target, convert(source, target, ConversionOptions(layout=layout, **wish))


def stored(path: Path) -> Weights:
    """All that is stored as weights, by the usual readers."""
    if path.is_dir():
        shards = [load_file(file) for file in sorted(path.glob("*.safetensors"))]
        return {name: tensor for shard in shards for name, tensor in shard.items()}
    content = torch.load(path, weights_only=True)
    return content["state_dict" if path.suffix == ".ckpt" else "model"]


def told(about: Description) -> dict[str, Any]:
    process = {k: v for k, v in about.process.items() if k != "mask_id"}
    facts = {"length": about.length, "mask": about.mask_id, **process, **about.sizes}
    return {"dropout": 0.0} | {k: v for k, v in facts.items() if v is not None}


def told_still(outcome: Outcome) -> dict[str, Any]:
    """What the source told, less what is said to be lost."""
    lost = {line.split()[0].replace("family", "name") for line in outcome.lost}
    left = {k: v for k, v in told(outcome.source).items() if k not in lost}
    return {"dropout": 0.0} | left | ({"name": outcome.written.family} if "name" in lost else {})


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


@pytest.mark.parametrize(
    ("write", "layout"), PAIRS, ids=[f"{w.__name__[6:]} to {to}" for w, to in PAIRS]
)
def test_everything_survives_there_and_back(write, layout: str, tmp_path: Path):
    source, weights = write(tmp_path / "model")
    before = names(tmp_path)
    target, outcome = convert_to(layout, source, tmp_path, **UNTOLD.get(write, {}))
    assert names(tmp_path) == sorted([*before, target.name])
    assert outcome.difference == 0

    found = read_public(target)
    assert (found.about.layout, found.about.kind) == (layout, outcome.source.kind)
    assert told(found.about) == told_still(outcome)
    assert_same_bits(found.weights, weights)
    there = stored(target)
    frequencies = there.pop(f"{PREFIX.get(layout, '')}rotary_emb.inv_freq", None)
    assert there.keys() == with_prefix(PREFIX.get(layout, ""), weights).keys()
    assert (frequencies is not None) == (layout not in ("idlm_ds", "llada"))
    if frequencies is not None:
        torch.testing.assert_close(frequencies, FREQUENCIES)

    back = tmp_path / "back"
    home = "llada" if outcome.source.kind == "llada" else "hugging_face"
    convert(target, back, ConversionOptions(layout=home))
    assert_same_bits(read_public(back).weights, weights)
    assert told(read_public(back).about) == told(found.about)


def test_a_published_configuration_is_written(tmp_path: Path):
    source, _ = disk.write_mdlm(tmp_path / "model")
    target, _ = convert_to("hugging_face", source, tmp_path)
    published = hugging_face_config(architectures=None, auto_map=None)
    assert json.loads((target / "config.json").read_text()) == published | {
        "mlp_ratio": 4,
        "mask_token_id": N - 1,
        "process": {"name": "mdlm"},
        "torch_dtype": "float32",
    }


def test_a_configuration_of_llada_is_what_was_read(tmp_path: Path):
    source, _ = disk.write_llada(tmp_path / "model")
    target, _ = convert_to("llada", source, tmp_path)
    unused = ("auto_map", "mlp_ratio", "eos_token_id")
    published = {k: v for k, v in disk.LLADA_CONFIG.items() if k not in unused}
    assert published.items() <= json.loads((target / "config.json").read_text()).items()
    assert read_public(target).about.mask_id == 9


def test_weights_and_their_running_mean_go_together(tmp_path: Path):
    source, mean = disk.write_sedd_training(tmp_path / "model")
    target, outcome = convert_to("lightning", source, tmp_path)
    again, _ = convert_to("sedd_training", target, tmp_path)
    assert outcome.sets == ("weights", "running mean")
    for path in (target, again):
        assert_same_bits(read_public(path).weights, mean)
        assert_same_bits(read_public(path, prefer_ema=False).weights, draw(dit_table(), 1))
        assert read_public(path).about.ema == RunningMean(0.9999, 7)
        shadow = torch.load(path, weights_only=True)["ema"]["shadow_params"]
        assert all(torch.equal(a, b) for a, b in zip(shadow, mean.values(), strict=True))


def test_a_lone_set_of_weights_starts_its_own_mean_in_the_same_memory(tmp_path: Path):
    source, weights = disk.write_sedd(tmp_path / "model")
    target, _ = convert_to("sedd_training", source, tmp_path)
    assert read_public(target).about.ema == RunningMean(0.9999, 0)
    assert_same_bits(read_public(target).weights, weights)
    assert target.stat().st_size < 1.5 * sum(w.nbytes for w in weights.values())


def test_the_raw_weights_can_be_carried_alone(tmp_path: Path):
    source, _ = disk.write_sedd_training(tmp_path / "model")
    raw = draw(dit_table(), 1)
    for layout in ("sedd", "lightning"):
        target, outcome = convert_to(layout, source, tmp_path, is_raw=True)
        assert_same_bits(read_public(target).weights, raw)
        assert "running mean" in outcome.lost


def test_what_a_layout_cannot_hold_is_told(tmp_path: Path):
    source, _ = disk.write_lightning(tmp_path / "model")
    _, outcome = convert_to("hugging_face", source, tmp_path)
    assert outcome.lost == ("weights other than the running mean", "state of the training")


def answers(path: Path, tokens: Tensor, sigma: Tensor) -> Tensor:
    model = read_public(path)
    row = NETWORKS[model.about.kind]
    network = load(row.entry_point)(load(row.config)(**model.about.sizes)).eval()
    fill_weights(network, model.weights)
    everywhere = torch.arange(tokens.numel())
    with torch.no_grad():
        return network(tokens, sigma, lambda head: head.scores(everywhere)).double()


def gentle(table: dict[str, tuple[int, ...]]) -> Weights:
    """Weights like trained ones: every layer counts and no softmax is saturated."""
    weights = draw(table, 3)
    return {n: (1.0 if "norm" in n else 0.0) + 0.2 * w for n, w in weights.items()}


@pytest.mark.parametrize("layout", ALL_OF_DIT)
def test_logits_are_those_of_the_published_forward_pass(layout: str, generator, tmp_path: Path):
    weights = gentle(dit_table())
    config = training_config(tokens=N - 1, graph={"type": "absorb"}, noise={"type": "loglinear"})
    target, _ = convert_to(layout, write_folder(tmp_path / "model", config, weights), tmp_path)
    tokens, sigma = torch.randint(N, (3, 7), generator=generator), torch.tensor([0.1, 1.0, 5.0])
    book = DiT(DiTConfig(**read_public(target).about.sizes)).requires_grad_(False)
    book.load_state_dict(weights)
    expected = by_the_book(book, tokens, sigma).flatten(0, 1)
    assert expected.std() > 0.1
    torch.testing.assert_close(answers(target, tokens, sigma), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", OF_LLADA)
def test_logits_of_llada_are_those_of_the_published_forward_pass(layout, generator, tmp_path: Path):
    weights = gentle(llada_table())
    source = write_folder(tmp_path / "model", disk.LLADA_CONFIG, weights)
    target, _ = convert_to(layout, source, tmp_path, family="mdlm")
    tokens = torch.randint(N, (3, 7), generator=generator)
    expected = reference.llada(weights, tokens, blocks=BLOCKS, heads=HEADS, base=5e5, eps=1e-5)
    got = answers(target, tokens, torch.zeros(3))
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected.flatten(0, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["hugging_face", "sedd_training"])
def test_a_cast_is_the_cast_of_every_tensor(layout: str, tmp_path: Path):
    source, mean = disk.write_sedd_training(tmp_path / "model")
    target, outcome = convert_to(layout, source, tmp_path, dtype=torch.bfloat16)
    assert read_public(target).about.dtype == "bfloat16"
    assert_same_bits(read_public(target).weights, {n: w.bfloat16() for n, w in mean.items()})
    assert 0 < outcome.difference < outcome.largest


def test_a_cast_to_what_is_stored_changes_nothing(tmp_path: Path):
    source, weights = disk.write_mdlm_in_bfloat16(tmp_path / "model")
    target, outcome = convert_to("lightning", source, tmp_path, dtype=torch.bfloat16)
    assert outcome.difference == 0
    assert_same_bits(read_public(target).weights, weights)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_numbers_that_equal_nothing_survive(tmp_path: Path):
    source, weights = disk.write_mdlm(tmp_path / "model")
    odd = weights["output_layer.linear.weight"].view(torch.int32)
    odd[0, :3] = torch.tensor([0x7FC00001, -0x80000000, 0x7F800000])
    save_file(with_prefix("backbone.", weights), source / "model.safetensors")
    target, _ = convert_to("lightning", source, tmp_path)
    kept = stored(target)["backbone.output_layer.linear.weight"].view(torch.int32)
    assert torch.equal(kept, odd)


@pytest.mark.parametrize("layout", ["sdtt", "idlm_ds"])
def test_large_folders_are_cut(layout, tmp_path: Path):
    source, weights = disk.write_mdlm(tmp_path / "model")
    target, _ = convert_to(layout, source, tmp_path, max_shard_size="20KB")
    shards = sorted(target.glob("model-*.safetensors"))
    assert len(shards) > 2
    largest = max(w.nbytes for w in weights.values())
    assert max(sum(t.nbytes for t in load_file(s).values()) for s in shards) <= max(largest, 20_000)
    assert {oct(s.stat().st_mode)[-3:] for s in shards} == {"644"}
    assert_same_bits(read_public(target).weights, weights)


SENSELESS: list[tuple[Callable[[Path], Written], str, dict[str, Any], str]] = [
    (disk.write_mdlm, "llada", {}, "a network of kind dit"),
    (disk.write_llada, "hugging_face", {}, "a network of kind llada"),
    (disk.write_llada, "lightning", {}, "a network of kind llada"),
    (disk.write_duo_twice_wrapped, "sedd", {}, "networks of sedd, not of duo"),
    (disk.write_lightning, "sedd_training", {}, "networks of sedd, not of duo"),
    (disk.write_duo_twice_wrapped, "sdtt", {}, "mdlm or sedd, not of duo"),
    (disk.write_mdlm, "sedd_training", {}, "networks of sedd, not of mdlm"),
    (disk.write_mdlm, "sedd", {}, "networks of sedd, not of mdlm"),
    (disk.write_lightning_without_configuration, "idlm_ds", {"sees_time": True}, "--family"),
    (disk.write_lightning_without_configuration, "hugging_face", {}, "--time-conditioning"),
    (disk.write_lightning_without_configuration, "idlm_ds", {"family": "duo"}, "--length"),
    (disk.write_mdlm, "idlm_ds", {"family": "duo"}, "--family: duo, but the source says mdlm"),
    (disk.write_mdlm, "idlm_ds", {"length": 9}, f"--length: 9, but the source says {LENGTH}"),
    (disk.write_mdlm, "idlm_ds", {"sees_time": True}, "--time-conditioning: True"),
    (disk.write_mdlm, "lightning", {"max_shard_size": "1MB"}, "never cut"),
    (disk.write_mdlm, "idlm_ds", {"max_shard_size": "big"}, "'big' is no size like 5GB"),
    (disk.write_mdlm, "sdtt", {"max_shard_size": "big"}, "'big' is no size like 5GB"),
]


@pytest.mark.parametrize(("write", "layout", "wish", "reason"), SENSELESS)
def test_what_makes_no_sense_is_refused_in_one_line(write, layout, wish, reason, tmp_path: Path):
    source, _ = write(tmp_path / "model")
    before = names(tmp_path)
    with pytest.raises(UserError) as refused:
        convert_to(layout, source, tmp_path, **wish)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)
    assert names(tmp_path) == before
