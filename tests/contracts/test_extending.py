"""The code of ``docs/extending.md`` works as the page says."""

import importlib
import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

import idlm_ds
from idlm_ds.build.locate import ASSETS
from idlm_ds.build.methods import make_method
from idlm_ds.build.networks import new_network, starting_weights
from idlm_ds.checkpoints.formats.public import read_public
from idlm_ds.checkpoints.model_folder import write_network
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.weights import fill_weights
from idlm_ds.noise import Noise
from idlm_ds.processes.base import at
from idlm_ds.processes.by_name import make_process
from idlm_ds.recipes.errors import RecipeError
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe, PretrainRecipe
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.samplers.reverse import sample_reverse
from idlm_ds.train.step import train_step
from tests.contracts import test_registry as contract
from tests.heads import ScoresOf
from tests.train.toy import batches, program_of

PAGE = (Path(idlm_ds.__file__).parents[1] / "docs" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S))
BLOCK = re.compile(r"```python\n# (.*?)\n(.*?)```", flags=re.S)
ROW = re.compile(r"a row of (\w+) in (.*)")
V = contract.V


@pytest.fixture
def follow(monkeypatch):
    """Do what a section says: put its files and its row where they belong, for one test."""

    def follow(title: str) -> dict[str, ModuleType]:
        modules = {}
        for place, code in BLOCK.findall(SECTIONS[title]):
            if row := ROW.fullmatch(place):
                registry = importlib.import_module(name_of(row[2]))
                made = eval(code, vars(registry))
                monkeypatch.setitem(getattr(registry, row[1]), made.name, made)
                continue
            name = name_of(place)
            assert importlib.util.find_spec(name) is None
            modules[name] = ModuleType(name)
            monkeypatch.setitem(sys.modules, name, modules[name])
            exec(compile(code, place, "exec"), vars(modules[name]))
        return modules

    return follow


def name_of(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


def test_every_section_has_code():
    assert list(SECTIONS) == [
        "A diffusion family",
        "A noise schedule",
        "A sampler",
        "A distillation method",
        "A network",
        "A checkpoint layout",
        "A metric",
    ]
    blocks = sum(len(BLOCK.findall(text)) for text in SECTIONS.values())
    assert blocks == PAGE.count("```python") == 14


def test_every_test_that_the_page_names_is_there():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) == 6
    assert all(callable(getattr(contract, name)) for name in named)


def test_nothing_of_the_page_is_there_before():
    with pytest.raises(RecipeError, match="process.name: expected one of mdlm, sedd, udlm, duo, "):
        load_recipe(DistillRecipe, "quickstart", ["process.name=flat"])


def test_a_family_is_named_in_a_recipe_and_built(follow, tmp_path):
    follow("A diffusion family")
    recipe = load_recipe(DistillRecipe, "quickstart", ["process.name=flat"])
    assert recipe.process.name == "flat"
    contract.test_a_family_is_built_from_its_settings("flat")
    contract.test_a_layout_reads_what_it_writes("idlm_ds", "dit", "flat", tmp_path)
    process = make_process(contract.settings(name="flat"), V, V - 1)
    x = process.prior(2, 6, noise=Noise([1, 2]))
    step = process.step
    times = uniform_grid(4)
    drawn = sample_reverse(process, step, prefers_three, x, times, noise=Noise([1, 2])).tokens
    assert bool((drawn < V - 1).all())


def prefers_three(x, sigma, read):
    """A network whose likeliest token is 3 everywhere."""
    return read(ScoresOf(lambda positions: torch.eye(V)[3].expand(len(positions), V)))


def test_a_schedule_is_named_in_a_recipe_and_built(follow):
    follow("A noise schedule")
    recipe = load_recipe(DistillRecipe, "quickstart", ["process.schedule=square"])
    assert recipe.process.schedule == "square"
    contract.test_a_schedule_is_built_from_its_settings("square")
    schedule = make_process(contract.settings(schedule="square", eps=0.01), V, V - 1).schedule
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    at_t = schedule.at(t)
    torch.testing.assert_close(schedule.inverse(at_t.alpha), t)
    (slope,) = torch.autograd.grad(at_t.alpha.sum(), t)
    torch.testing.assert_close(at_t.dalpha, slope)


def test_a_sampler_is_named_in_a_recipe_and_draws(follow):
    follow("A sampler")
    overrides = ["process.name=mdlm", "eval.sampler=argmax", "eval.matched_steps=[]"]
    assert load_recipe(DistillRecipe, "quickstart", overrides).eval.sampler == "argmax"
    process = make_process(contract.settings(), V, V - 1)
    x, noise = process.prior(2, 6, noise=Noise([1, 2])), Noise([1, 2])
    config = SamplerConfig(steps=4, sampler="argmax")
    sampled = config.draw(process, prefers_three, x, noise=noise)
    assert bool((sampled.tokens == 3).all())
    assert 0 < int(sampled.evaluations.min()) <= 4


def test_a_method_is_named_in_a_recipe_and_trains(follow):
    follow("A distillation method")
    recipe = load_recipe(DistillRecipe, "quickstart", ["objective.name=imitation"])
    contract.test_a_method_is_built_from_its_row("imitation")
    program = program_of("idlm", "mdlm")
    method = make_method(recipe, program.method.process)
    roles = {name: program.roles[name] for name in ("teacher", "student")}
    program = replace(program, method=method, roles=roles)
    for name in roles:
        roles[name].module.load_state_dict(roles["teacher"].module.state_dict())
    losses = [
        train_step(program, step, batch, is_logged=True) for step, batch in enumerate(batches(3))
    ]
    assert losses[0].loss == pytest.approx(0.0, abs=1e-6)
    assert 1 / 13 < losses[0].metrics["teacher_max_prob"] < 1


def test_a_network_is_pretrained_saved_and_read(follow, tmp_path):
    follow("A network")
    sizes = ["model.kind=bag", "model.hidden=8", "model.blocks=2", "model.heads=2"]
    recipe = load_recipe(PretrainRecipe, "pretrain_teacher_sedd", [*sizes, 'model.init=""'])
    tokenizer = Tokenizer(ASSETS / "tokenizer")
    network = new_network(recipe, tokenizer)
    module = network.make()
    fill_weights(module, starting_weights(recipe, network))
    write_network(tmp_path / "model", network.card, dict(module.named_parameters()))
    model, again = read_public(tmp_path / "model"), network.make()
    assert model.about.kind == "bag"
    fill_weights(again, model.weights)
    x, positions = torch.randint(len(tokenizer), (2, 5)), torch.arange(10)
    assert torch.equal(
        module(x, torch.zeros(2), at(positions)), again(x, torch.zeros(2), at(positions))
    )
    contract.test_a_network_is_built_filled_and_written_as_its_row_says("bag")
    contract.test_a_layout_reads_what_it_writes("idlm_ds", "bag", "mdlm", tmp_path / "contract")


def test_a_layout_is_told_apart_and_read(follow, tmp_path):
    follow("A checkpoint layout")
    for family in ("mdlm", "duo"):
        contract.test_a_layout_reads_what_it_writes("plain", "dit", family, tmp_path / family)


def test_a_metric_is_a_function_of_tensors(follow):
    (module,) = follow("A metric").values()
    tokens = torch.tensor([[5, 5, 5, 1], [1, 2, 3, 4], [7, 1, 1, 7]])
    assert module.longest_run(tokens).tolist() == [3, 1, 2]
