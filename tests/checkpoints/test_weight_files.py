"""Weights in one file or in shards: the same to every reader, and never a mixture."""

import json
import os
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from idlm_ds.build.locate import ASSETS
from idlm_ds.build.networks import new_network, starting_weights
from idlm_ds.checkpoints.formats.public import read_public
from idlm_ds.checkpoints.model_folder import write_network
from idlm_ds.checkpoints.tensors import NamedTensors
from idlm_ds.checkpoints.weight_files import Stream, folder_weights, has_weights
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from idlm_ds.export.student import find_student
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import PretrainRecipe
from tests.export.students import card_of, random_weights, write_student

SIZE, CARD = 1024, {"model_type": "toy"}
WEIGHTS = {name: torch.full((SIZE,), float(i)) for i, name in enumerate("abcde")}
SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
INDEX = "model.safetensors.index.json"
TWO_A_FILE = "10KB"
"""Of these weights."""


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != "config.json")


def stored(folder: Path) -> dict[str, float]:
    weights = folder_weights(folder)
    return {n: float(weights.read(n, (SIZE,), SIZE - 1, SIZE)) for n in sorted(weights.names())}


ALL = {name: float(i) for i, name in enumerate("abcde")}


def test_weights_up_to_the_size_of_a_file_are_one_and_larger_ones_shards(tmp_path: Path):
    write_network(tmp_path, CARD, WEIGHTS)
    assert names(tmp_path) == ["model.safetensors"]
    assert stored(tmp_path) == ALL
    write_network(tmp_path, CARD, WEIGHTS, max_shard_size=TWO_A_FILE)
    assert names(tmp_path) == [*SHARDS, INDEX]
    assert [len(load_file(tmp_path / shard)) for shard in SHARDS] == [2, 2, 1]
    assert stored(tmp_path) == ALL
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == 5 * SIZE * 4
    # And back, with what a killed process left.
    (tmp_path / ".model-00001-of-00009.safetensors").touch()
    write_network(tmp_path, CARD, WEIGHTS)
    assert names(tmp_path) == ["model.safetensors"]


def test_no_more_than_a_file_of_weights_is_ever_in_memory(tmp_path: Path):
    given: list[weakref.ref[Tensor]] = []
    alive = []

    def read(name: str) -> Tensor:
        tensor = WEIGHTS[name].clone()
        given.append(weakref.ref(tensor))
        alive.append(sum(t() is not None for t in given))
        return tensor

    empty = Stream.of(WEIGHTS).empty
    write_network(tmp_path, CARD, Stream(empty, read), max_shard_size=TWO_A_FILE)
    assert stored(tmp_path) == ALL
    assert alive == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("old", ["5GB", TWO_A_FILE, "5KB"])
@pytest.mark.parametrize("new", ["5GB", TWO_A_FILE])
@pytest.mark.parametrize("moment", range(4))
def test_a_write_that_fails_leaves_the_old_weights_the_new_or_none(
    old, new, moment, tmp_path: Path, monkeypatch
):
    write_network(tmp_path, CARD, {n: w + 10 for n, w in WEIGHTS.items()}, max_shard_size=old)
    before = {name: value + 10 for name, value in ALL.items()}
    calls = iter(range(100))

    def fails(function):
        def wrapper(*args, **more):
            if next(calls) == moment:
                raise OSError(28, "No space left on device")
            return function(*args, **more)

        return wrapper

    monkeypatch.setattr(os, "replace", fails(os.replace))
    try:
        write_network(tmp_path, CARD, WEIGHTS, max_shard_size=new)
    except OSError:
        assert not [name for name in names(tmp_path) if name.startswith(".")]
        assert not has_weights(tmp_path) or stored(tmp_path) == before
    else:
        assert stored(tmp_path) == ALL


def test_shards_without_an_index_are_no_weights(tmp_path: Path):
    write_network(tmp_path, CARD, WEIGHTS, max_shard_size=TWO_A_FILE)
    (tmp_path / INDEX).unlink()
    assert not has_weights(tmp_path)
    with pytest.raises(UserError, match=f"no weights there .model.safetensors or {INDEX}.$"):
        folder_weights(tmp_path)


def in_shards(folder: Path, target: Path) -> Path:
    """A copy of a model folder with its weights cut."""
    shutil.copytree(folder, target)
    card = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    size = sum(t.nbytes for t in weights.values())
    write_network(target, card, weights, max_shard_size=f"{size // 3 // 1000}KB")
    assert len(list(target.glob("model-*.safetensors"))) >= 3
    assert not (target / "model.safetensors").exists()
    return target


def same(one: NamedTensors, other: NamedTensors) -> bool:
    shapes = {name: one.shape(name) for name in one.names()}
    assert shapes == {name: other.shape(name) for name in other.names()}
    return all(
        one.read(n, s, 0, numel).equal(other.read(n, s, 0, numel))
        for n, s in shapes.items()
        for numel in [torch.Size(s).numel()]
    )


def test_students_in_shards_are_read_and_exported_like_whole_ones(tmp_path: Path):
    whole = write_student(tmp_path / "run" / "student", "mdlm")
    cut = in_shards(whole, tmp_path / "cut" / "student")
    assert same(read_public(cut).weights, read_public(whole).weights)
    for spec in (cut, cut.parent):
        assert same(find_student(str(spec)).weights, find_student(str(whole)).weights)
    assert random_weights(card_of("mdlm")).keys() == read_public(cut).weights.names()


def test_a_judge_in_shards_can_be_trained_on(tmp_path: Path):
    cut, whole = in_shards(ASSETS / "judge", tmp_path / "judge"), ASSETS / "judge"
    sources = []
    for folder in (cut, whole):
        recipe = load_recipe(PretrainRecipe, "pretrain_judge", [f"model.init={folder}"])
        network = new_network(recipe, Tokenizer(ASSETS / "tokenizer"))
        sources.append(starting_weights(recipe, network))
    assert same(*sources)
