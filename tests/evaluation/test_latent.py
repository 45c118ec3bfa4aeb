"""Students with a latent: drawn with it wherever they are evaluated, and said to be."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import idlm_ds
from idlm_ds.build.locate import ASSETS
from idlm_ds.build.saved_model import open_model
from idlm_ds.cli import launch
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.errors import UserError
from idlm_ds.evaluation.genppl import run_genppl
from idlm_ds.evaluation.lm_harness import Harness
from idlm_ds.evaluation.options import ChainGrid, GenPplOptions, Judging
from idlm_ds.noise import Noise
from idlm_ds.samplers.config import SamplerConfig
from tests.distributed.harness import run_ranks
from tests.evaluation.changes import change
from tests.evaluation.test_genppl import ALONE, results, tokens_of
from tests.toy_models import random_judge, random_teacher

ROOT = Path(idlm_ds.__file__).parents[1]
sys.path[:0] = [str(ROOT / "launchers"), str(ROOT / "tools")]

SIZE = 8


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("models"), Tokenizer(ASSETS / "tokenizer")
    random_teacher(folder / "teacher", tokenizer)
    random_teacher(folder / "student", tokenizer, latent=SIZE)
    random_judge(folder / "judge", tokenizer)
    return folder


@pytest.fixture
def options(models, tmp_path) -> GenPplOptions:
    return GenPplOptions(
        checkpoints=[str(models / "student"), str(models / "teacher")],
        grid=ChainGrid(steps=[3]),
        num_samples=5,
        batch=4,
        judging=Judging(judges=[str(models / "judge")]),
        output=tmp_path / "results",
    )


def _on_ranks(world: World, options: GenPplOptions) -> None:
    run_genppl(options, world)


def test_a_students_samples_are_drawn_with_its_latent_and_its_rows_say_so(
    options, models, capsys, tmp_path
):
    run_genppl(options, ALONE)
    shown = [(Path(row["model"]).name, row["steps"], row["latent"]) for row in results(options)]
    assert shown == [("student", 3, SIZE), ("teacher", 3, None)]
    assert "  latent  " in capsys.readouterr().out
    opened = open_model(str(models / "student"), length=None)
    noise = Noise.of_samples(0, "sample", samples=range(5))
    config, x = SamplerConfig(steps=3, latent=SIZE), opened.process.prior(5, 16, noise=noise)
    network = opened.load(torch.device("cpu"))
    wanted = config.draw(opened.process, network, x, noise=noise).tokens.tolist()
    drawn = tokens_of(options)
    assert wanted in drawn.values()
    other = change(options, batch=2, output=tmp_path / "on two ranks")
    run_ranks(_on_ranks, 2, other)
    assert tokens_of(other) == drawn


def test_a_table_without_latents_has_no_column_of_them(options, models, capsys):
    run_genppl(change(options, checkpoints=[str(models / "teacher")], steps=[1]), ALONE)
    heading = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("model "))
    assert "latent" not in heading


def run(program: str, arguments: list[object], monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        launch(import_module(program).main)
    assert ended.value.code == 0


@pytest.mark.parametrize(
    "more", [[], ["--sampler", "blockwise", "--length", 8]], ids=["chain", "blockwise"]
)
def test_the_launcher_draws_with_the_latent_of_the_card_and_says_it(
    more, models, tmp_path, monkeypatch, capsys
):
    texts = []
    for batch in (1, 3):
        output = tmp_path / f"{batch}.json"
        asked = ["--checkpoint", models / "student", "--num-samples", 3, "--steps", 2, *more]
        judge = ["--judge", models / "judge", "--output", output, "--batch-size", batch]
        run("sample", [*asked, *judge], monkeypatch)
        assert f", latent {SIZE}," in capsys.readouterr().out
        texts.append(json.loads(output.read_text())["generated_seqs"])
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 3


def test_gaps_are_filled_with_the_latent_of_the_card(models, tmp_path, monkeypatch, capsys):
    asked = ["--checkpoint", models / "student", "--text", "The ___4 of", "--num-samples", 2]
    run("infill", [*asked, "--output", tmp_path / "filled.json"], monkeypatch)
    assert f"steps, ancestral, latent {SIZE}: " in capsys.readouterr().out
    provenance = json.loads((tmp_path / "filled.json").read_text())["provenance"]
    assert provenance["latent"] == SIZE


def test_a_harness_continues_texts_and_refuses_likelihoods(models):
    harness = Harness.from_arguments({"pretrained": str(models / "student"), "steps": 2})
    texts = harness.generate([("The people", {"max_gen_toks": 3})] * 2, quiet=True)
    assert texts[0] != texts[1]
    with pytest.raises(UserError, match=r"^loglikelihood: a student with a latent of 8 is a mix"):
        harness.score([("The people", " of")], quiet=True)
    with pytest.raises(UserError, match=r"^loglikelihood: a student with a latent of 8 is a mix"):
        harness.score_whole(["The people"], quiet=True)
