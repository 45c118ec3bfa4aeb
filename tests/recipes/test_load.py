"""What a recipe file may say, and the line its author reads when it says something else."""

import copy
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from idlm_ds.recipes.errors import RecipeError
from idlm_ds.recipes.load import load_recipe, to_yaml
from idlm_ds.recipes.schema import DistillRecipe, PretrainRecipe
from idlm_ds.recipes.strict_yaml import read_yaml

from .samples import DISTILL, PRETRAIN

KINDS = [pytest.param(DistillRecipe, DISTILL, id="distill")]
KINDS += [pytest.param(PretrainRecipe, PRETRAIN, id="pretrain")]
MINIMAL = """\
name: least
process: {name: mdlm}
teacher: {}
data: {length: 8}
train: {student_steps: 1, global_batch: 1, micro_batch: 1}
optim: {lr: 1}
objective: {}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe file into a fresh folder; give its path."""

    def _write(text: str | bytes, name: str = "toy") -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return _write


def refusal(cls, source, overrides=(), **rest) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(cls, source, overrides, **rest)
    line = str(caught.value)
    assert len(line) <= 200
    assert "\n" not in line
    assert line.isprintable()
    return line


def leaves(tree, path=()):
    """Every key of a nested mapping, sections included, as a path of names."""
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


def holder(tree, path):
    for name in path[:-1]:
        tree = tree[name]
    return tree


def test_a_recipe_holds_what_its_file_says(write):
    recipe = load_recipe(DistillRecipe, write(DISTILL))
    assert (recipe.name, recipe.seed, recipe.process.eps) == ("toy", 7, 1e-3)
    assert recipe.optim.lr == 3e-4
    assert recipe.optim.betas == (0.9, 0.95)
    assert (recipe.optim.fake_lr_scale, type(recipe.optim.fake_lr_scale)) == (2.0, float)
    assert recipe.eval.matched_steps == (8, 32)
    assert not recipe.eval.is_measured
    assert recipe.log.wandb == "off"
    assert recipe.log.tensorboard is True


def test_what_a_file_leaves_out_takes_the_documented_value(write):
    recipe = load_recipe(DistillRecipe, write(MINIMAL))
    assert recipe.seed == 0
    assert (recipe.objective.name, recipe.objective.fake_steps) == ("idlm", 1)
    assert recipe.objective.reduction == "mean"
    assert recipe.ema.decay == 0.9999
    assert recipe.eval.teacher_steps == (4, 8, 16, 32, 64, 256, 1024)
    assert (recipe.checkpoint.every, recipe.checkpoint.keep) == (100, 2)


@pytest.mark.parametrize(("cls", "text"), [*KINDS, pytest.param(DistillRecipe, MINIMAL, id="min")])
def test_a_written_recipe_reads_back_equal(cls, text, write):
    recipe = load_recipe(cls, write(text))
    written = to_yaml(recipe)
    assert load_recipe(cls, write(written)) == recipe
    assert to_yaml(load_recipe(cls, write(written))) == written


@pytest.mark.parametrize(("cls", "text"), KINDS)
def test_every_key_misspelt_by_one_character_is_refused_by_its_name(cls, text, write):
    good = read_yaml(text, "good")
    for path in leaves(good):
        key = path[-1]
        for wrong in (f"{key}x", key[:-1] + "q", key[1:], key.upper()):
            bad = copy.deepcopy(good)
            place = holder(bad, path)
            place[wrong] = place.pop(key)
            line = refusal(cls, write(yaml.safe_dump(bad)))
            assert line.startswith(f"{'.'.join((*path[:-1], wrong))}: unknown key; ")


WRONG = {
    dict: (None, "text", 3, 1.5, True, [1]),
    tuple: (None, "text", 3, 1.5, True, {"a": 1}, [[1]], ["text"], [True]),
    str: (None, 3, 1.5, True, ["text"], {"a": 1}),
    int: (None, "text", 1.5, True, [3], {"a": 1}),
    float: (None, "text", True, [1.5], {"a": 1}),
    bool: (None, "text", 1, 1.5, [True], {"a": 1}),
}


@pytest.mark.parametrize(("cls", "text"), KINDS)
def test_every_value_of_another_type_is_refused_by_its_key(cls, text, write):
    good = read_yaml(text, "good")
    resolved = dataclasses.asdict(load_recipe(cls, write(text)))
    for path in leaves(good):
        for wrong in WRONG[type(holder(resolved, path)[path[-1]])]:
            bad = copy.deepcopy(good)
            holder(bad, path)[path[-1]] = wrong
            line = refusal(cls, write(yaml.safe_dump(bad)))
            assert re.match(re.escape(".".join(path)) + r"(\[0\])?: expected ", line)


@pytest.mark.parametrize(("cls", "text"), KINDS)
def test_a_required_key_left_out_is_named(cls, text, write):
    good = read_yaml(text, "good")
    required = {"name", "process", "data", "train", "optim", "objective", "process.name"}
    required |= {"data.length", "train.global_batch", "train.micro_batch", "optim.lr"}
    if cls is DistillRecipe:
        required |= {"teacher", "train.student_steps"}
    else:
        required |= {"model", "model.hidden", "model.blocks", "model.heads", "train.steps"}
        required |= {"objective.name"}
    for path in leaves(good):
        bad = copy.deepcopy(good)
        del holder(bad, path)[path[-1]]
        dotted = ".".join(path)
        if dotted in required:
            assert refusal(cls, write(yaml.safe_dump(bad))) == f"{dotted}: missing required key"
        else:
            load_recipe(cls, write(yaml.safe_dump(bad)))


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("objective.fake_stpes=2", "objective.fake_stpes: unknown key; did you mean fake_steps?"),
        ("objectve.fake_steps=2", "objectve: unknown key; did you mean objective?"),
        ("ema.zzz=2", "ema.zzz: unknown key; known: decay"),
        ("objective.name=vsd", "objective.name: expected one of idlm, dmd, sdtt, dcd, got 'vsd'"),
        ("train.precision=fp16", "train.precision: expected one of fp32, bf16, got 'fp16'"),
        ("train.micro_batch=true", "train.micro_batch: expected an integer, got true"),
        ("train.micro_batch=8.0", "train.micro_batch: expected an integer, got 8.0"),
        ("train.micro_batch=1e3", "train.micro_batch: expected an integer, got '1e3'"),
        ("train.micro_batch=010", "train.micro_batch: expected an integer, got '010'"),
        ("train.micro_batch=1:30", "train.micro_batch: expected an integer, got '1:30'"),
        ("log.tensorboard=1", "log.tensorboard: expected true or false, got 1"),
        ("log.tensorboard=yes", "log.tensorboard: expected true or false, got 'yes'"),
        ("student.latent=3", "student.latent: expected a section of keys, got 3"),
        ("student.latent.sise=3", "student.latent.sise: unknown key; did you mean size?"),
        ("student.latent.size=-1", "student.latent.size: must be at least 0, got -1"),
        ("name=", "name: must be non-empty text, got ''"),
        ('name=""', "name: must be non-empty text, got ''"),
        ("seed=-1", "seed: must be at least 0, got -1"),
        ("optim=3", "optim: expected a section of keys, got 3"),
        ("optim.lr=.nan", "optim.lr: expected a finite number, got nan"),
        ("optim.lr=.inf", "optim.lr: expected a finite number, got inf"),
        ("optim.lr=1e999", "optim.lr: expected a finite number, got inf"),
        ("optim.lr=nan", "optim.lr: expected a number, got 'nan'"),
        ("optim.lr=true", "optim.lr: expected a number, got true"),
        ("optim.lr=" + "9" * 400, "optim.lr: expected a finite number, got inf"),
        ("optim.betas=[0.9]", "optim.betas: expected a list of 2, got 1"),
        ("optim.betas=[0.9, x]", "optim.betas[1]: expected a number, got 'x'"),
        ("optim.betas=[0.9, .nan]", "optim.betas[1]: expected a finite number, got nan"),
        ("process.mask_id=x", "process.mask_id: expected an integer, got 'x'"),
        ("process.mask_id=true", "process.mask_id: expected an integer, got true"),
        ("process.mask_id=-1", "process.mask_id: must be 0 or more, got -1"),
        ("eval.steps=4", "eval.steps: expected a list, got 4"),
        ("eval.when=later", "eval.when: expected one of end, never, got 'later'"),
        ("eval.remasking=any", "eval.remasking: expected one of low_confidence, random, got 'any'"),
        ("eval.steps=[4, 4]", "eval.steps: must be increasing counts, each at least 1, got (4, 4)"),
        ("eval.steps=[4, true]", "eval.steps[1]: expected an integer, got true"),
        ("model.hidden=4", "model: unknown key; known: name, seed, process, teacher, student,"),
        ("seed.deep=4", "seed.deep: seed is not a section of keys"),
        ("seed", "override 'seed': expected dotted.key=value"),
        ("=3", "override '=3': expected dotted.key=value"),
        ("optim..lr=3", "override 'optim..lr=3': expected dotted.key=value"),
        ("optim={lr: 1}", "override 'optim={lr: 1}': a value is a scalar or a list;"),
        ("eval.steps=[4", "override 'eval.steps=[4': line 1: "),
        (
            "seed=!!python/name:os.system x",
            "override 'seed=!!python/name:os.system x': line 1: tag",
        ),
    ],
)
def test_what_is_wrong_with_a_value_is_said_in_one_line(override, line, write):
    assert refusal(DistillRecipe, write(DISTILL), [override]).startswith(line)


def test_overrides_replace_add_and_the_last_one_counts(write):
    overrides = ["seed=1", "seed=2", "eval.steps=[1, 2, 3]", "optim.lr=1e-5", "log.wandb=off"]
    overrides += ["log.project=a=b", "ema.decay=0"]
    recipe = load_recipe(DistillRecipe, write(MINIMAL), overrides)
    assert recipe.seed == 2
    assert recipe.eval.steps == (1, 2, 3)
    assert recipe.optim.lr == 1e-5
    assert (recipe.log.wandb, recipe.log.project) == ("off", "a=b")
    assert recipe.ema.decay == 0.0


TEXTS = [
    *(
        "run #2",
        "#2",
        "1",
        "010",
        "1e-3",
        "true",
        "null",
        "~",
        "C:\\runs\\x",
        "a: b",
        "{a: 1}",
        "[x",
    ),
    *(
        "*x",
        "&x",
        "!!str x",
        "%x",
        "@x",
        "`x`",
        "- x",
        "? x",
        "x,",
        "it's",
        "'a' or 'b'",
        '"',
        "'x",
    ),
    *("a=b", " x ", "x\ty", "ünï", "--x", "|", ">-", "<<"),
]


@pytest.mark.parametrize("key", ["data.corpus", "data.tokenizer", "eval.judge", "teacher.path"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_taken_as_it_stands_quoted_or_not(key, text, write):
    section, field = key.split(".")
    path = write(MINIMAL)
    single = text.replace("'", "''")
    double = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    for typed in (text, f"'{single}'", f'"{double}"'):
        recipe = load_recipe(DistillRecipe, path, [f"{key}={typed}"])
        assert getattr(getattr(recipe, section), field) == text
    recipe = load_recipe(DistillRecipe, path, [f"{key}=other"], texts={key: f"'{text}'"})
    assert getattr(getattr(recipe, section), field) == f"'{text}'"


def test_what_may_be_absent_takes_a_value_or_null(write):
    numbered = load_recipe(DistillRecipe, write(MINIMAL), ["process.mask_id=103"])
    assert numbered.process.mask_id == 103
    again = load_recipe(DistillRecipe, write(to_yaml(numbered)), ["process.mask_id=null"])
    assert again.process.mask_id is None
    assert load_recipe(DistillRecipe, write(to_yaml(again))) == again


def test_an_override_can_supply_a_required_key(write):
    text = MINIMAL.replace("optim: {lr: 1}\n", "")
    assert load_recipe(DistillRecipe, write(text), ["optim.lr=2"]).optim.lr == 2.0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected a mapping of keys"),
        ("- a\n", "expected a mapping of keys"),
        ("word\n", "expected a mapping of keys"),
        (MINIMAL + "name: again\n", "line 8: duplicate key name"),
        (b"name: \xff\n", "not UTF-8 (byte 6)"),
        ("name: x\n".encode("utf-16"), "not UTF-8 (byte 0)"),
    ],
)
def test_a_file_that_holds_no_recipe_is_refused_by_file_and_problem(text, problem, write):
    line = refusal(DistillRecipe, write(text))
    assert f"toy.yaml: {problem}" in line


def test_a_merge_key_is_an_unknown_key(write):
    line = refusal(DistillRecipe, write(MINIMAL + "<<: {seed: 3}\n"))
    assert line.startswith("<<: unknown key; known: name, seed")


def test_a_hostile_key_cannot_break_the_line(write):
    assert refusal(DistillRecipe, write(MINIMAL + '"a\\n\\e[31m' + "z" * 900 + '": 1\n'))


def test_a_bare_name_is_looked_up_in_the_folder(write, tmp_path: Path):
    write(MINIMAL, "mdlm_1.3b")
    assert load_recipe(DistillRecipe, "mdlm_1.3b", folder=tmp_path).name == "least"


def test_an_unknown_name_lists_the_known_ones(write, tmp_path: Path):
    write(MINIMAL, "one")
    write(MINIMAL, "two")
    line = refusal(DistillRecipe, "three", folder=tmp_path)
    assert line == "three: no such recipe; known names: one, two"
    line = refusal(DistillRecipe, tmp_path / "gone.yaml", folder=tmp_path / "none")
    assert line.endswith("gone.yaml: no such recipe; known names: none")


def test_a_recipe_of_the_other_kind_names_the_program_that_runs_it(write):
    line = refusal(PretrainRecipe, write(DISTILL))
    assert line.endswith(
        "toy.yaml: this is a distillation recipe (it has 'teacher'); use launchers/distill.py"
    )
    line = refusal(DistillRecipe, write(PRETRAIN))
    assert line.endswith(
        "toy.yaml: this is a pretraining recipe (it has 'model'); use launchers/pretrain.py"
    )


@pytest.mark.parametrize("name", ["sdtt", "dcd"])
def test_methods_without_a_fake_take_nothing_that_is_for_its_samples(name, write):
    path, method = write(DISTILL), f"objective.name={name}"
    none = {
        "student.latent.size": 0,
        "objective.full_noise_fraction": 0.0,
        "objective.noisings": 1,
    }
    for key, value in zip(none, (8, 0.5, 3), strict=True):
        changes = [f"{k}={v}" for k, v in (none | {key: value}).items()]
        line = refusal(DistillRecipe, path, [method, *changes])
        assert line == f"{key}: must be {none[key]:.0f} with objective.name {name}, got {value}"
    load_recipe(DistillRecipe, path, [method, *(f"{k}={v}" for k, v in none.items())])


def test_what_has_no_fake_has_no_mean_of_one():
    for value in ("true", "false"):
        with pytest.raises(RecipeError, match=r"^ema\.fake: must be null with objective.name sdtt"):
            load_recipe(DistillRecipe, "quickstart", ["objective.name=sdtt", f"ema.fake={value}"])
        with pytest.raises(RecipeError, match=r"^ema\.fake: must be null in pretraining, which "):
            load_recipe(PretrainRecipe, "pretrain_teacher", [f"ema.fake={value}"])
        assert load_recipe(DistillRecipe, "quickstart", [f"ema.fake={value}"]).ema.fake is (
            value == "true"
        )
