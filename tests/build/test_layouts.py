"""A teacher of any layout is distilled like one of this package, and its student is one again."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from idlm_ds.build.engines import engine_setup
from idlm_ds.build.locate import ASSETS
from idlm_ds.checkpoints.conversion import ConversionOptions, convert
from idlm_ds.checkpoints.formats.public import read_public
from idlm_ds.data.corpus import read_corpus
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.runs.distill import run_distill
from idlm_ds.runs.session import RunOptions, Session
from tests.distributed.harness import run_ranks
from tests.toy_models import random_judge, random_teacher

pytestmark = pytest.mark.dist

ZERO_3 = ASSETS.parents[1] / "ds_configs" / "zero3.json"
LAYOUTS = {"mdlm": "lightning", "sedd": "sedd", "udlm": "hugging_face", "duo": "idlm_ds"}
"""Each family from another layout."""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("files"), Tokenizer(ASSETS / "tokenizer")
    documents = read_corpus(ASSETS / "sotu.jsonl.xz")[:4]
    lines = [json.dumps({"id": d.name, "text": d.text[:4000]}) for d in documents]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    random_judge(folder / "judge", tokenizer)
    for family, layout in LAYOUTS.items():
        random_teacher(folder / family, tokenizer, family=family)
        convert(folder / family, folder / f"{family}.ckpt", ConversionOptions(layout=layout))
    return folder


def _distil(world: World, overrides: list[str], output: Path) -> str:
    recipe = load_recipe(DistillRecipe, "quickstart", overrides)
    session = Session(recipe, RunOptions(output=output), world)
    return str(run_distill(recipe, engine_setup(ZERO_3, recipe, world=world.size), session))


def settings(files: Path, family: str, teacher: Path) -> list[str]:
    return [
        f"process.name={family}", f"teacher.path={teacher}", f"eval.judge={files / 'judge'}",
        f"data.corpus={files / 'corpus.jsonl'}", "data.length=16", "data.heldout_every=2",
        "train.student_steps=1", "train.global_batch=2", "train.micro_batch=2",
        "eval.num_samples=2", "eval.steps=[1]", "eval.teacher_steps=[1]", "eval.matched_steps=[1]",
        "optim.warmup_steps=0", "log.sample_every=0", "checkpoint.every=100",
    ]  # fmt: skip


def student_of(teacher: Path, family: str, files: Path, output: Path) -> Path:
    (student,) = run_ranks(_distil, 1, settings(files, family, teacher), output)
    origin = json.loads((Path(student) / "config.json").read_text())["origin"]
    assert origin["teacher"]["model"] == str(teacher)
    return Path(student)


@pytest.mark.parametrize("family", LAYOUTS)
def test_a_teacher_of_every_family_is_distilled_from_another_layout(family, files, tmp_path):
    teacher = files / f"{family}.ckpt"
    student = student_of(teacher, family, files, tmp_path / "run")
    found, wanted = read_public(student).about, read_public(teacher).about
    assert wanted.layout == LAYOUTS[family]
    assert (found.layout, found.length) == ("idlm_ds", 16)
    assert (found.family, found.mask_id) == (wanted.family, wanted.mask_id)
    assert found.sizes == wanted.sizes


@pytest.mark.slow
def test_the_layout_makes_no_difference_to_the_student(files, tmp_path):
    students = [
        student_of(files / name, "mdlm", files, tmp_path / name) for name in ("mdlm", "mdlm.ckpt")
    ]
    own, other = (load_file(student / "model.safetensors") for student in students)
    assert own.keys() == other.keys()
    assert all(own[name].equal(other[name]) for name in own)
