"""Where pretraining starts from, and what it is measured by."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from idlm_ds.build.locate import ASSETS
from idlm_ds.build.networks import new_network, starting_weights
from idlm_ds.build.tokenizers import load_tokenizer
from idlm_ds.errors import UserError
from idlm_ds.objectives.pretrain import Nelbo, NextToken
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.udlm import UDLM
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import PretrainRecipe
from idlm_ds.runs.pretrain import make_method


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("assets:tokenizer")


def recipe_of(name: str, *overrides: str) -> PretrainRecipe:
    return load_recipe(PretrainRecipe, name, overrides)


@pytest.mark.parametrize(
    ("name", "model", "parameter"),
    [
        ("pretrain_teacher_sedd", "teacher", "blocks.1.mlp.0.weight"),
        ("pretrain_judge", "judge", "lm.transformer.h.1.mlp.c_fc.weight"),
    ],
)
def test_a_named_model_is_where_training_starts(name, model, parameter, tokenizer):
    recipe = recipe_of(name, f"model.init=assets:{model}")
    source = starting_weights(recipe, new_network(recipe, tokenizer))
    stored = load_file(ASSETS / model / "model.safetensors")[parameter.removeprefix("lm.")]
    assert source.read(parameter, tuple(stored.shape), 7, 300).equal(stored.flatten()[7:300])


def test_without_one_weights_are_a_function_of_the_seed(tokenizer):
    def first(seed: int) -> torch.Tensor:
        recipe = recipe_of("pretrain_teacher", f"seed={seed}")
        source = starting_weights(recipe, new_network(recipe, tokenizer))
        return source.read("blocks.0.attn_qkv.weight", (576, 192), 0, 9)

    assert first(1).equal(first(1))
    assert not first(1).equal(first(2))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.init=nowhere"], "model.init: no such file or folder: nowhere"),
        (["model.init=assets:tokenizer"], "model.init: .*no config.json there"),
        (
            ["model.init=assets:teacher", "model.blocks=6"],
            "blocks.4.norm1.weight is missing",
        ),
        (["model.init=assets:teacher", "model.cond=32"], "model.init: .*has shape"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(overrides, words, tokenizer):
    recipe = recipe_of("pretrain_teacher", *overrides)
    with pytest.raises(UserError, match=words):
        starting_weights(recipe, new_network(recipe, tokenizer))


def test_duo_trains_on_its_relaxation_and_is_measured_on_tokens(tokenizer):
    recipe = recipe_of("pretrain_teacher_duo", "process.name=duo")
    trained = make_method(recipe, tokenizer)
    measured = make_method(recipe, tokenizer, is_validation=True)
    assert isinstance(trained, Nelbo)
    assert isinstance(trained.process, Duo)
    assert isinstance(measured, Nelbo)
    assert isinstance(measured.process, UDLM)
    assert measured.process.schedule == trained.process.schedule


def test_other_families_are_measured_by_what_they_train_on(tokenizer):
    recipe = recipe_of("pretrain_teacher")
    assert make_method(recipe, tokenizer, is_validation=True) == make_method(recipe, tokenizer)
    judge = replace(recipe, objective=replace(recipe.objective, name="ar"))
    assert isinstance(make_method(judge, tokenizer, is_validation=True), NextToken)
