"""The projection that a student starts with, and the students that have none."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from idlm_ds.build.latent import WithProjection, root_mean_square, with_latent
from idlm_ds.build.locate import ASSETS
from idlm_ds.build.methods import find_teacher
from idlm_ds.build.networks import Network, known_network
from idlm_ds.build.saved_model import find_model, open_model
from idlm_ds.checkpoints.model_folder import NetworkCard, write_network
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.weights import fill_weights
from idlm_ds.errors import UserError
from idlm_ds.evaluation.draw import SingleProcess
from idlm_ds.evaluation.likelihood import run_likelihood
from idlm_ds.evaluation.options import LikelihoodOptions, ModelOptions
from idlm_ds.models.init import InitialWeights
from idlm_ds.objectives.idlm import IDLM
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.recipes.student import LatentSection

DIT = {"kind": "dit", "hidden": 32, "blocks": 1, "heads": 2, "cond": 8, "vocab_size": 2049}
LLADA = {"kind": "llada", "hidden": 32, "blocks": 1, "heads": 2, "ffn": 48, "vocab_size": 2060}
NAMES = {
    "dit": ("vocab_embed.embedding", "latent_map.weight"),
    "llada": ("model.transformer.wte.weight", "model.transformer.latent_map.weight"),
}
SIZE, SCALE, RATE = 64, 0.5, 5.0
SECTION = LatentSection(size=SIZE, scale=SCALE, rate=RATE)


def card_of(sizes: dict[str, Any]) -> NetworkCard:
    return NetworkCard(network=sizes, process={"name": "mdlm"}, length=16)


def weights_of(card: NetworkCard) -> InitialWeights:
    return InitialWeights(
        lambda name, shape, g: 0.07 * torch.randn(shape, generator=g), seed=len(card.network)
    )


@pytest.fixture(params=[DIT, LLADA], ids=["dit", "llada"])
def network(request: pytest.FixtureRequest) -> Network:
    return known_network(card_of(request.param))


def filled(network: Network, seed: int = 0, section: LatentSection = SECTION) -> dict[str, Tensor]:
    student = with_latent(network, section)
    module = student.make()
    fill_weights(module, WithProjection(weights_of(network.card), student, section, seed=seed))
    return dict(module.named_parameters())


def test_a_student_starts_with_the_teachers_weights_and_a_projection_of_the_size_asked(network):
    table, projection = NAMES[network.card.network["kind"]]
    weights, source = filled(network), weights_of(network.card)
    for name, weight in weights.items():
        if name != projection:
            shape = tuple(weight.shape)
            assert weight.flatten().equal(source.read(name, shape, 0, weight.numel())), name
    z = torch.randn(4000, SIZE, generator=torch.Generator().manual_seed(0))
    added = RATE * z @ weights[projection].T
    level = weights[table].square().mean().sqrt()
    # 32 x 64 random weights: their mean square is within 10 % of its expectation.
    assert (added.square().mean().sqrt() / level).item() == pytest.approx(SCALE, rel=0.1)
    assert weights[projection].mean().abs() < 4 * weights[projection].std() / 2048**0.5


def test_rate_and_scale_set_the_projection_and_the_seed_its_numbers(network):
    _, projection = NAMES[network.card.network["kind"]]
    first = filled(network)[projection]
    assert filled(network)[projection].equal(first)
    assert not filled(network, seed=1)[projection].equal(first)
    faster = filled(network, section=replace(SECTION, rate=2 * RATE))[projection]
    torch.testing.assert_close(2 * faster, first)
    larger = filled(network, section=replace(SECTION, scale=3 * SCALE))[projection]
    torch.testing.assert_close(larger, 3 * first)


def test_parts_of_a_projection_are_those_of_the_whole(network):
    student = with_latent(network, SECTION)
    source = WithProjection(weights_of(network.card), student, SECTION, seed=3)
    _, projection = NAMES[network.card.network["kind"]]
    whole = source.read(projection, (32, SIZE), 0, 32 * SIZE)
    assert source.read(projection, (32, SIZE), 100, 777).equal(whole[100:777])
    assert source.shape("nothing of the kind") == ()


def test_a_table_is_measured_in_pieces(monkeypatch):
    monkeypatch.setattr("idlm_ds.build.latent.CHUNK", 7)
    source = InitialWeights(lambda name, shape, g: torch.arange(12.0).view(shape), seed=0)
    assert root_mean_square(source, "table", (4, 3)) == pytest.approx((506 / 12) ** 0.5)


def test_no_latent_leaves_the_network_as_it_is(network):
    assert with_latent(network, LatentSection()) is network


def recipe_of(*overrides: str, size: int = SIZE) -> DistillRecipe:
    return load_recipe(DistillRecipe, "quickstart", [f"student.latent.size={size}", *overrides])


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(ASSETS / "tokenizer")


def test_only_the_student_and_its_samples_have_the_latent(tokenizer):
    teacher = find_teacher(recipe_of("objective.full_noise_fraction=0.25"), tokenizer)
    assert isinstance(teacher.method, IDLM)
    assert (teacher.method.latent, teacher.method.full_noise_fraction) == (SIZE, 0.25)
    assert teacher.chain.latent == 0
    plain, student = (dict(n.make().named_parameters()) for n in (teacher.network, teacher.student))
    assert student.keys() - plain.keys() == {"latent_map.weight"}
    extra = {"latent": SIZE, "latent_rate": RATE}
    assert teacher.student.card.network == teacher.network.card.network | extra


def test_activations_are_computed_twice_in_a_student_with_a_latent_too(tokenizer):
    teacher = find_teacher(recipe_of("train.checkpoint_activations=true"), tokenizer)
    assert teacher.student.make().config.checkpoint_activations
    assert "checkpoint_activations" not in teacher.student.card.network


def student_folder(folder: Path, **changes: Any) -> Path:
    card = card_of({**DIT, "latent": SIZE, "latent_rate": RATE, **changes})
    module = known_network(card).make()
    fill_weights(module, weights_of(card))
    write_network(folder, card, dict(module.named_parameters()))
    Tokenizer(ASSETS / "tokenizer").save(folder)
    return folder


def test_a_saved_student_tells_its_latent(tmp_path):
    opened = open_model(str(student_folder(tmp_path / "student")), length=None)
    assert opened.latent == SIZE
    config = opened.load(torch.device("cpu")).config
    assert (config.latent, config.latent_rate) == (SIZE, RATE)
    assert open_model("assets:teacher", tokenizer="assets:tokenizer", length=64).latent == 0


def test_a_student_with_a_latent_is_no_teacher(tmp_path, tokenizer):
    folder = student_folder(tmp_path / "student")
    with pytest.raises(UserError, match=r"^teacher\.path: .* is a student with a latent of 64; "):
        find_teacher(recipe_of(f"teacher.path={folder}", "data.length=16", size=0), tokenizer)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"latent": 32}, r"latent_map\.weight: shape \[32, 64\] instead of \[32, 32\]"),
        ({"latent": 0}, r"unexpected latent_map\.weight"),
        ({"latent": -1}, "network.latent is no integer between 0"),
        ({"latent_rate": None}, "nothing tells its latent_rate"),
    ],
    ids=str,
)
def test_a_card_that_does_not_fit_its_projection_is_refused(changes, complaint, tmp_path):
    folder = student_folder(tmp_path / "student")
    config = json.loads((folder / "config.json").read_text())
    config["network"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=complaint):
        find_model(str(folder), "--checkpoint")


def test_a_card_may_say_that_there_is_no_latent(tmp_path):
    card = card_of({**DIT, "latent": 0, "latent_rate": 1.0})
    module = known_network(card).make()
    fill_weights(module, weights_of(card))
    write_network(tmp_path, card, dict(module.named_parameters()))
    assert find_model(str(tmp_path), "--checkpoint").about.latent == 0


def test_a_card_that_names_a_latent_needs_its_projection(tmp_path):
    folder = tmp_path / "student"
    card = card_of(DIT)
    module = known_network(card).make()
    fill_weights(module, weights_of(card))
    write_network(
        folder,
        card_of({**DIT, "latent": SIZE, "latent_rate": RATE}),
        dict(module.named_parameters()),
    )
    with pytest.raises(UserError, match=r"missing latent_map\.weight"):
        find_model(str(folder), "--checkpoint")


def test_a_likelihood_of_a_student_with_a_latent_is_refused(tmp_path):
    options = LikelihoodOptions(
        checkpoints=[str(student_folder(tmp_path / "student"))],
        texts=["assets:sotu"],
        model=ModelOptions(),
        output=tmp_path,
    )
    with pytest.raises(UserError, match="with a latent of 64: it is a mixture") as error:
        run_likelihood(options, SingleProcess(torch.device("cpu")))
    assert "\n" not in str(error.value)
