"""NLL of saved models on files of text."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from idlm_ds.build.locate import ASSETS
from idlm_ds.data.corpus import read_corpus
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.errors import UserError
from idlm_ds.evaluation.likelihood import run_likelihood
from idlm_ds.evaluation.options import LikelihoodOptions
from tests.distributed.harness import run_ranks
from tests.evaluation.changes import change
from tests.evaluation.test_genppl import ALONE, models
from tests.toy_models import random_teacher

__all__ = ["models"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    documents = read_corpus(ASSETS / "sotu.jsonl.xz")[:3]
    lines = [json.dumps({"id": d.name, "text": d.text[:1500]}) for d in documents]
    (folder / "three.jsonl").write_text("\n".join(lines))
    (folder / "one.txt").write_text(documents[0].text[:1500])
    return folder


@pytest.fixture
def options(models, texts, tmp_path) -> LikelihoodOptions:
    return LikelihoodOptions(
        checkpoints=[str(models / "teacher")],
        texts=[str(texts / "three.jsonl"), str(texts / "one.txt")],
        windows=7,
        draws=2,
        batch=3,
        output=tmp_path / "results",
    )


def rows_of(options: LikelihoodOptions) -> list[dict]:
    return json.loads((options.output / "results.json").read_text())["rows"]


def _on_ranks(world: World, options: LikelihoodOptions) -> None:
    run_likelihood(options, world)


def test_figures_are_those_of_any_batch_and_any_number_of_ranks(options, tmp_path):
    run_likelihood(options, ALONE)
    rows = rows_of(options)
    assert [row["windows"] for row in rows] == [7, 7]
    for row in rows:
        assert row["bits"] == pytest.approx(row["nats"] / math.log(2))
        assert row["ppl"] == pytest.approx(math.exp(row["nats"]))
        assert row["nats_se"] > 0
    run_likelihood(replace(options, batch=1, output=tmp_path / "one"), ALONE)
    run_ranks(_on_ranks, 2, replace(options, output=tmp_path / "two"))
    for name in ("one", "two"):
        for got, row in zip(rows_of(replace(options, output=tmp_path / name)), rows, strict=True):
            assert got["nats"] == pytest.approx(row["nats"], rel=1e-5)
            assert got["text_hash"] == row["text_hash"]
    with (options.output / "results.csv").open() as file:
        assert [row["text"] for row in csv.DictReader(file)] == options.texts


def test_an_untrained_network_is_as_sure_as_chance(options, models, tmp_path):
    folder, tokenizer = tmp_path / "blank", Tokenizer(ASSETS / "tokenizer")
    random_teacher(folder, tokenizer, scale=0.0)
    run_likelihood(replace(options, checkpoints=[str(folder)], draws=64), ALONE)
    for row in rows_of(options):
        wanted = math.log(len(tokenizer))
        assert abs(row["nats"] - wanted) < 4 * row["nats_se"]


def test_windows_are_whole_and_eos_is_a_choice(options, texts):
    one = str(texts / "one.txt")
    run_likelihood(replace(options, texts=[one], windows=999), ALONE)
    (framed,) = rows_of(options)
    run_likelihood(replace(options, texts=[one], windows=999, with_eos=False), ALONE)
    (bare,) = rows_of(options)
    tokenizer = Tokenizer(ASSETS / "tokenizer")
    (ids,) = tokenizer.encode([(texts / "one.txt").read_text()])
    assert (framed["windows"], bare["windows"]) == ((len(ids) + 1) // 16, len(ids) // 16)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"windows": 0}, "--windows: must be at least 1"),
        ({"draws": 0}, "--draws: must be at least 1"),
        ({"texts": ["nowhere.txt"]}, "--text: no such file or folder: nowhere.txt"),
        ({"checkpoints": ["nowhere"]}, "--checkpoint: no such file"),
        ({"length": 9999}, "--text: .* tokens, fewer than a window of 9999"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_in_one_line(changes, words, options):
    with pytest.raises(UserError, match=words):
        run_likelihood(change(options, **changes), ALONE)
