"""What is exported of a run: its student, or what a checkpoint holds of it."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open

from idlm_ds.errors import UserError
from idlm_ds.export.student import find_student
from idlm_ds.export.write import ExportOptions, export
from tests.export.students import (
    LENGTH,
    card_of,
    random_weights,
    write_checkpoint,
    write_recipe,
    write_student,
)

WEIGHTS, OTHERS = (random_weights(card_of("mdlm"), seed) for seed in (0, 7))
"""Of ``write_student``, and of somebody else."""

CODE_AND_WEIGHTS = ("*.py", "*.safetensors", "config.json", "generation_config.json", "token*")


def exported(model: Path, output: Path, **options: str) -> dict[str, bytes]:
    export(ExportOptions(model=str(model), output=output, chain={"steps": 8}, **options))
    return {p.name: p.read_bytes() for glob in CODE_AND_WEIGHTS for p in output.glob(glob)}


def first_weight(model: Path | str) -> float:
    student = find_student(str(model))
    name = "vocab_embed.embedding"
    return student.weights.read(name, student.weights.shape(name), 0, 1).item()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was stopped: a recipe, a teacher elsewhere, no student yet."""
    write_recipe(tmp_path / "run", write_student(tmp_path / "teacher", "mdlm"))
    return tmp_path / "run"


@pytest.mark.parametrize("cuts", [(1.0,), (0.37, 1.0), (0.001, 0.002, 0.5, 1.0)])
def test_a_checkpoint_of_any_number_of_ranks_exports_as_the_student_it_holds(run, tmp_path, cuts):
    wanted = exported(write_student(tmp_path / "student", "mdlm"), tmp_path / "wanted")
    folder = write_checkpoint(run, WEIGHTS, cuts=cuts)
    assert exported(folder, tmp_path / "got") == wanted
    page = (tmp_path / "got" / "README.md").read_text()
    for line in ("made by: idlm, running-mean weights", "checkpoint: step-6", "student updates: 3",
                 "commit: c0ffee", "recipe: quickstart", "trained with: torch 2.0"):  # fmt: skip
        assert f"\n- {line}\n" in page


def test_a_run_stands_for_its_student_or_else_for_its_newest_valid_checkpoint(run):
    write_checkpoint(run, OTHERS, step=3)
    damaged = write_checkpoint(run, WEIGHTS, step=9)
    newest = write_checkpoint(run, WEIGHTS, step=6)
    (damaged / "student" / "rank-00000.safetensors").unlink()
    assert find_student(str(run)).origin["checkpoint"] == newest.name
    student = write_student(run / "student", "mdlm", origin={"recipe": "mine"})
    assert find_student(str(run)).origin["recipe"] == "mine"
    assert first_weight(run) == first_weight(student) == first_weight(newest)
    assert first_weight(run / "checkpoints" / "step-3") != first_weight(newest)


def test_a_relative_path_will_do(run, monkeypatch):
    write_checkpoint(run, WEIGHTS)
    monkeypatch.chdir(run / "checkpoints")
    assert find_student("step-6").about.length == LENGTH


def test_a_checkpoint_away_from_its_run_is_described_by_another_folder(run, tmp_path):
    moved = tmp_path / "elsewhere" / "deeper" / "step-6"
    shutil.copytree(write_checkpoint(run, WEIGHTS), moved)
    with pytest.raises(UserError, match="no run around it tells its network; pass --card FOLDER"):
        find_student(str(moved))
    student = find_student(str(moved), str(tmp_path / "teacher"))
    assert student.about.process["eps"] == 0.01
    with pytest.raises(UserError, match="does not fit its network: missing"):
        find_student(str(moved), str(write_student(tmp_path / "llada", "llada")))


def test_a_teacher_that_is_gone_is_named_with_the_way_out(run, tmp_path):
    write_checkpoint(run, WEIGHTS)
    shutil.rmtree(tmp_path / "teacher")
    with pytest.raises(UserError, match=r"recipe\.yaml: teacher\.path: no such .*pass --card"):
        find_student(str(run))


def test_every_flipped_bit_is_noticed(run):
    folder = write_checkpoint(run, WEIGHTS)
    path = folder / "student" / "rank-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    for spec in (folder, run):
        with pytest.raises(UserError, match="does not match its SHA-256"):
            find_student(str(spec))


def test_a_checkpoint_without_manifest_or_student_is_refused(run):
    folder = write_checkpoint(run, WEIGHTS)
    state = json.loads((folder / "loop.json").read_text())
    (folder / "MANIFEST.json").unlink()
    with pytest.raises(UserError, match=r"no MANIFEST\.json"):
        find_student(str(folder))
    shutil.rmtree(folder)
    assert state["updates"] == {"fake": 3, "student": 3}
    with pytest.raises(UserError, match="neither a model folder nor a checkpoint nor a run"):
        find_student(str(run))


def test_weights_are_the_running_mean(run):
    folder = write_checkpoint(run, WEIGHTS)
    with safe_open(folder / "student" / "rank-00000.safetensors", framework="pt") as file:
        raw = file.get_tensor("weight:vocab_embed.embedding")[0].item()
    assert first_weight(folder) == pytest.approx(raw - 1.0)
    assert first_weight(folder) != raw


def test_a_checkpoint_of_a_student_with_a_latent_is_described_by_its_recipe(tmp_path):
    run = tmp_path / "run"
    latent = {f"student.latent.{k}": v for k, v in (("size", 6), ("rate", 4.0))}
    write_recipe(run, write_student(tmp_path / "teacher", "mdlm"), **latent)
    weights = random_weights(card_of("mdlm-latent"))
    wanted = exported(write_student(tmp_path / "own", "mdlm-latent"), tmp_path / "wanted")
    assert exported(write_checkpoint(run, weights), tmp_path / "got") == wanted
    about = find_student(str(run)).about
    assert (about.latent, about.sizes["latent_rate"]) == (6, 4.0)
    assert about.parameters == sum(weight.numel() for weight in weights.values())
    page = (tmp_path / "got" / "README.md").read_text()
    assert "sequences of 12 tokens, 6 random numbers beside each" in page
    assert "`latents` are standard normal numbers (B, L, 6)" in page
    with pytest.raises(UserError, match=r"does not fit its network: unexpected latent_map\.weight"):
        find_student(str(run), str(tmp_path / "teacher"))
