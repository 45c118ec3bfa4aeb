"""What each method needs, and what it refuses before anything is started."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from idlm_ds.build import methods
from idlm_ds.build.locate import ASSETS
from idlm_ds.build.methods import find_teacher, make_program
from idlm_ds.checkpoints.model_folder import NetworkCard, write_network
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.config import AdamW
from idlm_ds.errors import UserError
from idlm_ds.models.dit import DiT, DiTConfig
from idlm_ds.objectives.alternation import Alternation, Phase
from idlm_ds.objectives.idlm import IDLM
from idlm_ds.objectives.self_distillation import DCD, SDTT, Rounds
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.recipes.sections import ProcessSection
from idlm_ds.samplers.block_config import BlockwiseConfig
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.train.renewal import Renewal
from idlm_ds.train.step import Program

TRAINED = {"mdlm": "mdlm", "sedd": "sedd", "udlm": "udlm", "duo": "udlm"}
"""What the teacher of each family was trained as."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(ASSETS / "tokenizer")


def teacher_folder(folder: Path, family: str, vocab_size: int) -> Path:
    sizes = {"hidden": 8, "blocks": 1, "heads": 1, "cond": 4, "vocab_size": vocab_size}
    process = asdict(ProcessSection(name=family))
    card = NetworkCard(network={"kind": "dit", **sizes}, process=process, length=64)
    write_network(folder, card, dict(DiT(DiTConfig(**sizes)).named_parameters()))
    return folder


def recipe_for(folder: Path, family: str, method: str, *more: str) -> DistillRecipe:
    overrides = [f"teacher.path={folder}", f"process.name={family}", f"objective.name={method}"]
    return load_recipe(DistillRecipe, "quickstart", [*overrides, *more])


@pytest.fixture
def find(tokenizer, tmp_path):
    def find(family: str, method: str, *more: str) -> tuple[DistillRecipe, methods.Teacher]:
        folder = teacher_folder(tmp_path, TRAINED[family], len(tokenizer) + 1)
        recipe = recipe_for(folder, family, method, *more)
        return recipe, find_teacher(recipe, tokenizer)

    return find


@pytest.mark.parametrize("family", TRAINED)
def test_inverse_distillation_fits_every_family_and_the_baselines_their_own(family, find):
    for method in ("idlm", "dmd"):
        assert isinstance(find(family, method)[1].method, IDLM)
    mine, other = ("sdtt", "dcd") if family in ("mdlm", "sedd") else ("dcd", "sdtt")
    _, teacher = find(family, mine)
    kind = {"sdtt": SDTT, "dcd": DCD}[mine]
    assert isinstance(teacher.method, kind)
    assert teacher.method.process == teacher.process
    with pytest.raises(
        UserError, match=rf"^objective\.name: {other} is .*process\.name is {family}$"
    ):
        find(family, other)


def test_a_recipe_says_how_samples_are_drawn(find):
    _, teacher = find("sedd", "idlm", "eval.sampler=euler", "eval.matched_steps=[]")
    assert teacher.chain == SamplerConfig(steps=32, sampler="euler")
    more = ["eval.tail=greedy", "eval.nucleus=0.9", "eval.precision=float32", "eval.steps=[2,7]"]
    _, teacher = find("duo", "idlm", *more)
    assert teacher.chain == SamplerConfig(steps=7, tail="greedy", nucleus=0.9, precision="float32")


def test_a_recipe_says_the_blocks_that_samples_are_filled_in(find):
    more = ["eval.sampler=blockwise", "eval.steps=[4,8]", "eval.teacher_steps=[4]"]
    length = find("mdlm", "idlm")[0].data.length
    _, teacher = find("mdlm", "idlm", *more)
    assert teacher.chain == BlockwiseConfig(steps=8, block=length, remasking="low_confidence")
    more += [f"eval.block={length // 4}", "eval.remasking=random"]
    _, teacher = find("sedd", "idlm", *more)
    assert teacher.chain == BlockwiseConfig(steps=8, block=length // 4, remasking="random")
    assert teacher.chain.label == f"blockwise, block {length // 4}, random"
    with pytest.raises(UserError, match=r"^eval\.sampler: blockwise needs a masked family"):
        find("udlm", "idlm", *more[:3])


@pytest.mark.parametrize("family", ["udlm", "duo"])
def test_a_sampler_the_family_has_not_is_refused_before_training(family, find):
    with pytest.raises(UserError, match="eval.sampler: analytic needs a masked family"):
        find(family, "idlm", "eval.sampler=analytic", "eval.matched_steps=[]")


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_recipe_says_whether_activations_are_computed_twice(is_asked, find):
    _, teacher = find("mdlm", "idlm", f"train.checkpoint_activations={str(is_asked).lower()}")
    assert teacher.network.make().config.checkpoint_activations is is_asked
    assert "checkpoint_activations" not in teacher.network.card.network


def test_rounds_must_fit_into_the_run_where_there_are_rounds(find):
    three, four = "train.student_steps=3", "train.student_steps=4"
    with pytest.raises(UserError, match=r"^objective\.rounds: 4 do not fit .*student_steps 3$"):
        find("mdlm", "sdtt", three, "objective.rounds=4")
    find("mdlm", "sdtt", four, "objective.rounds=4")
    find("mdlm", "idlm", three, "objective.rounds=4")


def test_a_teacher_of_another_vocabulary_or_family_is_refused(tokenizer, tmp_path):
    folder = teacher_folder(tmp_path, "mdlm", 50258)
    words = rf"^teacher\.path: .* 50258 with mask 50257, .* {len(tokenizer)} words; it takes 50257"
    with pytest.raises(UserError, match=words):
        find_teacher(recipe_for(folder, "mdlm", "sdtt"), tokenizer)
    with pytest.raises(UserError, match=r"^process\.name: 'sedd', but .* with 'mdlm'$"):
        find_teacher(recipe_for(folder, "sedd", "sdtt"), tokenizer)


class Role:
    """Stands for an engine; knows how it was started."""

    def __init__(self, optimizer: AdamW | None = None, ema_decay: float | None = None) -> None:
        self.optimizer = optimizer
        self.ema_decay = ema_decay
        self.kept: dict[str, Any] = {}
        self.shards = SimpleNamespace(weights=[torch.zeros(3)])


@pytest.fixture
def program(find, monkeypatch):
    def program(family: str, method: str, *last: str) -> Program:
        monkeypatch.setattr(methods, "start_frozen", lambda *_: Role())
        monkeypatch.setattr(
            methods, "start_trained", lambda *given, ema_decay: Role(given[-1], ema_decay)
        )
        more = ["train.student_steps=12", "objective.fake_steps=2", "objective.rounds=2"]
        more += ["objective.grid=5", "optim.lr=0.5", "optim.fake_lr_scale=3", "ema.decay=0.9"]
        recipe, teacher = find(family, method, *more, "optim.warmup_steps=0", *last)
        world = SimpleNamespace(size=1, rank=0)
        return make_program(recipe, SimpleNamespace(json=None, numerics=None), teacher, world)

    return program


def started(made: Program) -> dict[str, tuple[float | None, float | None]]:
    """Learning rate and decay of the running mean, by role."""
    return {
        name: (role.optimizer and role.optimizer.lr, role.ema_decay)
        for name, role in made.roles.items()
    }


@pytest.mark.parametrize(
    ("t_min", "input_t_min", "of_samples", "of_input"),
    [("null", "null", 0.2, 0.2), ("0.6", "null", 0.6, 0.6), ("0.6", "0.4", 0.6, 0.4)]
    + [("null", "0.4", 0.2, 0.4), ("0", "0.0", 0.0, 0.0)],
)
def test_smallest_times_fall_back_on_each_other(t_min, input_t_min, of_samples, of_input, program):
    times = [f"objective.t_min={t_min}", f"objective.input_t_min={input_t_min}"]
    made = program("mdlm", "idlm", "process.t_min=0.2", *times)
    assert made.method.smallest_times == {"t-input": of_input, "t": of_samples}
    in_rounds = program("mdlm", "sdtt", "process.t_min=0.2", *times)
    assert in_rounds.method.smallest_times == {"t": of_samples}


@pytest.mark.parametrize("method", ["idlm", "dmd"])
def test_inverse_distillation_starts_three_networks_of_which_two_learn(method, program):
    made = program("duo", method)
    assert started(made) == {"teacher": (None, None), "fake": (1.5, 0.9), "student": (0.5, 0.9)}
    assert isinstance(made.method, IDLM)
    assert made.method.is_input_differentiated == (method == "idlm")
    assert made.method.plan == Alternation(fake_steps=2)
    assert {p: (rate.peak, rate.total) for p, rate in made.rates.items()} == {
        Phase.FAKE: (1.5, 24),
        Phase.STUDENT: (0.5, 12),
    }


@pytest.mark.parametrize(
    ("fake", "of_small", "of_large"),
    [("null", 0.9, None), ("true", 0.9, 0.9), ("false", None, None)],
)
def test_a_fake_has_a_running_mean_where_it_is_small_or_the_recipe_says_so(
    fake, of_small, of_large, program, monkeypatch
):
    assert methods.LARGEST_WITH_MEAN == 1e9
    asked = f"ema.fake={fake}"
    for largest, wanted in ((1e9, of_small), (10, of_large)):
        monkeypatch.setattr(methods, "LARGEST_WITH_MEAN", largest)
        roles = started(program("mdlm", "idlm", asked))
        decays = {name: decay for name, (_, decay) in roles.items()}
        assert decays == {"teacher": None, "fake": wanted, "student": 0.9}


@pytest.mark.parametrize(("family", "method"), [("mdlm", SDTT), ("duo", DCD)])
def test_self_distillation_starts_a_student_and_who_it_was(family, method, program):
    made = program(family, method.__name__.lower())
    assert started(made) == {"teacher": (None, None), "student": (0.5, 0.9)}
    assert made.roles["student"].kept.keys() == {"handover"}
    assert isinstance(made.method, method)
    assert isinstance(made.prepare, Renewal)
    assert made.method.rounds == Rounds(updates=12, count=2, grid=5)
    rate = made.rates[Phase.STUDENT]
    assert (rate.peak, rate.total) == (0.5, 12)
