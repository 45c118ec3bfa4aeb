"""What a kept set states covers everything that all of them depend on."""

from dataclasses import replace

import pytest
import torch

from idlm_ds.kernels import dispatch
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.runs import measurement
from idlm_ds.runs.measurement import shared_settings
from tests.runs.test_session import Alone

WORLD = Alone(0, 1, 0, torch.device("cpu"))


def settings(*overrides: str) -> dict:
    return dict(shared_settings(load_recipe(DistillRecipe, "quickstart", list(overrides)), WORLD))


@pytest.mark.parametrize("change", ["process.eps=0.01", "train.precision=bf16"])
def test_another_family_or_precision_is_stated(change):
    assert settings(change) != settings()


def test_the_kernels_that_run_are_stated_not_the_wish(monkeypatch):
    before = settings()
    assert settings("train.kernels=auto") == settings("train.kernels=reference")
    monkeypatch.setattr(dispatch, "_choice", "triton")
    assert settings() != before


@pytest.mark.parametrize("package", ["transformers", "tokenizers"])
def test_the_versions_of_what_reads_texts_are_stated(package, monkeypatch):
    before, version = settings(), measurement.version
    monkeypatch.setattr(
        measurement, "version", lambda name: "0" if name == package else version(name)
    )
    assert settings() != before


def test_ranks_and_batch_change_nothing():
    recipe = load_recipe(DistillRecipe, "quickstart")
    assert settings("eval.batch=3") == settings()
    assert shared_settings(recipe, replace(WORLD, size=8)) == settings()
