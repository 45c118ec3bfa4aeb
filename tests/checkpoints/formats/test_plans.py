"""Names and shapes are those of the networks; what does not fit is told, all of it."""

import math
from typing import Any

import pytest
import torch

from idlm_ds.checkpoints.formats.plans import infer_sizes, listed, own_name, plan_of, problems
from idlm_ds.models.dit import DiT, DiTConfig
from tests.checkpoints import published
from tests.checkpoints.published import DIT_SIZES, Weights, dit_table, draw, llada_table

DIT_INNER = {"vocab_size": 11, "hidden": 24, "cond": 8, "inner": 96, "blocks": 2}
LLADA = {"vocab_size": 11, "hidden": 24, "ffn": 40, "blocks": 2}


class Held:
    """Tensors in memory."""

    label = "memory"

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def names(self) -> set[str]:
        return set(self._weights)

    def shape(self, name: str) -> tuple[int, ...] | None:
        return tuple(self._weights[name].shape) if name in self._weights else None

    def dtype(self, name: str) -> torch.dtype:
        return self._weights[name].dtype

    def read(self, name: str, shape: tuple[int, ...], start: int, stop: int) -> torch.Tensor:
        return self._weights[name].flatten()[start:stop]


def test_the_order_of_a_running_mean_is_that_of_the_networks_parameters():
    network = DiT(DiTConfig(**DIT_SIZES))
    own = [(name, tuple(p.shape)) for name, p in network.named_parameters()]
    assert list(plan_of("dit").shapes(DIT_INNER).items()) == own
    assert list(dit_table().items()) == own


def test_names_of_llada_are_the_published_ones():
    assert plan_of("llada").shapes(LLADA) == llada_table()


@pytest.mark.parametrize(
    ("hidden", "blocks", "parameters"),
    [
        (256, 8, 33_789_010),
        (512, 8, 80_061_266),
        (768, 12, 169_627_218),
        (1024, 24, 424_477_010),
        (1536, 24, 863_158_098),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(hidden, blocks, parameters):
    sizes = {"vocab_size": 50258, "hidden": hidden, "cond": 128, "inner": 4 * hidden}
    shapes = plan_of("dit").shapes({**sizes, "blocks": blocks})
    assert sum(map(math.prod, shapes.values())) == parameters


def test_llada_has_the_published_number_of_parameters():
    sizes = {"vocab_size": 126_464, "hidden": 4096, "ffn": 12_288, "blocks": 32}
    assert sum(map(math.prod, plan_of("llada").shapes(sizes).values())) == 8_015_581_184


@pytest.mark.parametrize(
    "stored",
    [
        "blocks.0.norm1.weight",
        "backbone.blocks.0.norm1.weight",
        "backbone.backbone.blocks.0.norm1.weight",
        "_orig_mod.backbone.blocks.0.norm1.weight",
        "backbone._orig_mod.blocks.0.norm1.weight",
        "backbone.blocks.0._orig_mod.norm1.weight",
        "backbone._orig_mod.backbone._orig_mod.blocks.0.norm1.weight",
    ],
)
def test_whatever_wraps_a_network_is_taken_off_its_names(stored):
    assert own_name(stored) == "blocks.0.norm1.weight"


@pytest.mark.parametrize("name", ["head.backbone.weight", "backbones.x", "my_backbone.x"])
def test_only_what_leads_is_taken_off(name):
    assert own_name(name) == name


@pytest.mark.parametrize(("kind", "sizes"), [("dit", DIT_INNER), ("llada", LLADA)])
def test_sizes_follow_from_shapes(kind, sizes):
    weights = draw(plan_of(kind).shapes(sizes), 0)
    assert infer_sizes(plan_of(kind), Held(weights), {}) == sizes
    assert problems(plan_of(kind), plan_of(kind).shapes(sizes), Held(weights)) == []


@pytest.mark.parametrize("lost", sorted(dit_table()))
def test_sizes_follow_without_any_one_tensor(lost):
    weights = {name: w for name, w in draw(dit_table(), 0).items() if name != lost}
    assert infer_sizes(plan_of("dit"), Held(weights), {}) == DIT_INNER


def test_stated_sizes_come_first():
    held = Held(draw(dit_table(), 0))
    assert infer_sizes(plan_of("dit"), held, {"hidden": 5, "heads": 3})["hidden"] == 5


def test_nothing_is_told_by_nothing():
    assert infer_sizes(plan_of("dit"), Held({}), {}) == dict.fromkeys(DIT_INNER, -1) | {"blocks": 0}


def test_a_size_that_nothing_tells_fits_any():
    shapes = plan_of("dit").shapes(DIT_INNER | {"cond": -1})
    assert problems(plan_of("dit"), shapes, Held(draw(dit_table(), 0))) == []


def damaged() -> Weights:
    weights: dict[str, Any] = draw(dit_table(), 0)
    for i in range(published.BLOCKS):
        del weights[f"blocks.{i}.mlp.0.bias"]
        weights[f"blocks.{i}.attn_qkv.weight"] = torch.zeros(24, 72)
    weights["blocks.1.norm1.weight"] = torch.zeros(24, 1)
    weights["vocab_embed.embedding"] = torch.zeros(11, 24, dtype=torch.int8)
    weights["rotary_emb.inv_freq"] = torch.zeros(4)
    weights["x\ny"] = torch.zeros(1)
    weights["blocks.7.norm1.weight"] = torch.zeros(24)
    return weights


def test_all_that_does_not_fit_is_told():
    assert problems(plan_of("dit"), dit_table(), Held(damaged())) == [
        "missing blocks.0-1.mlp.0.bias",
        "unexpected blocks.7.norm1.weight, x\\ny",
        "blocks.0-1.attn_qkv.weight: shape [24, 72] instead of [72, 24]",
        "blocks.1.norm1.weight: shape [24, 1] instead of [24]",
        "vocab_embed.embedding: not floating-point",
    ]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], ""),
        (["a", "b"], "a, b"),
        (["blocks.0.x", "blocks.1.x", "blocks.2.x"], "blocks.0-2.x"),
        (["blocks.0.x", "blocks.2.x"], "blocks.0,2.x"),
        (["blocks.11.x"], "blocks.11.x"),
        (["m.blocks.1.x", "m.blocks.0.x", "m.blocks.1.y"], "m.blocks.0-1.x, m.blocks.1.y"),
        (["a{}b"], "a{}b"),
        (["\x1b[2J\u202e"], "\\x1b[2J\\u202e"),
        (["y" * 500], "y" * 120),
        ([f"n{i}" for i in range(100)], ", ".join(f"n{i}" for i in range(40)) + ", and 60 more"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_names_are_told_in_one_short_line(names, told):
    assert listed(names) == told
