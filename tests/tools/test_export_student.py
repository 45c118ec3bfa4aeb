"""The export as a program: what it prints, what it refuses, and what it leaves behind."""

import json
import sys
from pathlib import Path

import pytest

import idlm_ds
from idlm_ds.cli import launch
from idlm_ds.export import write
from tests.export.students import write_student

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
import export_student

ROW = {
    "model": "student", "steps": 8, "nfe": 7.9, "sampler": "ancestral", "precision": "float64",
    "temperature": 1.0, "gen_ppl": 132.24, "gen_ppl_se": 3.14, "entropy": 3.78941,
    "entropy_se": 0.00691, "distinct_2": 0.5742, "seconds": 6.6, "num_samples": 256,
    "judge": "judge@b285", "seeds": [1234],
}  # fmt: skip


ORIGIN = {"recipe": "mine", "teacher": {"model": "T", "revision": None}, "student_updates": 40}


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """The folder of a finished run's student."""
    folder = write_student(tmp_path / "run" / "student", "mdlm", origin=ORIGIN)
    report = {"settings": {"tokens a sample": "12"}, "rows": [ROW, ROW | {"gen_ppl_se": None}]}
    (folder.parent / "report.json").write_text(json.dumps(report))
    (folder.parent / "run.json").write_text(json.dumps({"versions": {"torch": "2.0"}}))
    return folder


@pytest.fixture
def program(monkeypatch, capsys):
    """Runs it in this process and returns exit code, standard output and error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["export_student.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            launch(export_student.main)
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_it_says_what_it_wrote_and_leaves_nothing_else(program, student, tmp_path):
    output = tmp_path / "out" / "mine"
    code, out, err = program(student.parent, "--output", output, "--max-shard-size", "200KB")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{output}: dit of family mdlm, 76,033 parameters",
        "  float32, 2 files of at most 200KB",
    ]
    assert names(output.parent) == {"mine"}
    assert names(output) >= {"README.md", "config.json", "generation_config.json", "diffusion.py",
                             "modeling_idlm.py", "tokenizer.json"}  # fmt: skip
    tokenizer = json.loads((output / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not tokenizer.keys() & {"backend", "is_local", "local_files_only"}
    assert {oct(path.stat().st_mode & 0o777) for path in output.iterdir()} == {"0o644"}


def test_the_page_tells_use_origin_and_figures_with_their_settings(program, student, tmp_path):
    output = tmp_path / "mine"
    asked = ("--license", "mit", "--base-model", "me/teacher", "--steps", 16, "--nucleus", 0.9)
    assert program(student, "--output", output, *asked)[0] == 0
    page = (output / "README.md").read_text()
    head, body = page.removeprefix("---\n").split("\n---\n")
    assert head.splitlines() == [
        "base_model: me/teacher", "library_name: transformers", "license: mit",
        "pipeline_tag: text-generation", "tags:", "- diffusion", "- distillation", "- mdlm",
    ]  # fmt: skip
    assert body.startswith("\n# mine\n")
    for text in (
        "AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)",
        "model.generate(num_samples=4, steps=16, seed=0)",
        "16 steps of the ancestral, nucleus 0.9 sampler in float64 at temperature 1",
        "A diffusion language model of the `mdlm` family, distilled to generate in few steps: "
        "76,033 parameters, stored as float32; sequences of 12 tokens; a vocabulary of 2049 with "
        "mask 2048.",
        "- recipe: mine\n- teacher: model T\n- student updates: 40\n- trained with: torch 2.0\n"
        "- exported with: idlm_ds",
        "| student | 8 | 7.9 | 132.2 ± 3.1 | 3.7894 ± 0.0069 | 0.5742 | 1 | ancestral | float64 "
        "| 256 | 1234 | judge@b285 |",
        "| student | 8 | 7.9 | 132.2 ± ? | 3.7894",
        "tokens a sample 12",
    ):
        assert text in body
    settings = json.loads((output / "generation_config.json").read_text())
    assert settings == {
        "do_sample": True, "steps": 16, "sampler": "ancestral", "precision": "float64",
        "tail": "ancestral", "temperature": 1.0, "nucleus": 0.9,
    }  # fmt: skip


def test_figures_of_other_weights_are_not_told(program, student, tmp_path):
    other = student.rename(student.parent / "another")
    assert program(other, "--output", tmp_path / "mine")[0] == 0
    page = (tmp_path / "mine" / "README.md").read_text()
    assert "## Figures" not in page
    assert "trained with" not in page


def test_an_earlier_export_is_replaced_when_asked(program, student, tmp_path):
    output = tmp_path / "mine"
    assert program(student, "--output", output, "--max-shard-size", "200KB")[0] == 0
    code, _, err = program(student, "--output", output)
    assert (code, err) == (
        2, f"error: --output: {output} is not empty; --fresh replaces an earlier export\n",
    )  # fmt: skip
    assert program(student, "--output", output, "--fresh", "--steps", 3)[0] == 0
    assert json.loads((output / "generation_config.json").read_text())["steps"] == 3
    assert not list(output.glob("model-*"))
    assert names(tmp_path) == {"run", "mine"}


def test_fresh_deletes_only_what_an_export_writes(program, student, tmp_path):
    output = tmp_path / "mine"
    assert program(student, "--output", output)[0] == 0
    (output / "notes.txt").write_text("mine")
    code, _, err = program(student, "--output", output, "--fresh")
    assert code == 2
    assert err == f"error: --fresh: {output}/notes.txt is nothing that an export writes; move it\n"
    assert (output / "notes.txt").read_text() == "mine"
    for folder in (student, tmp_path):
        before = names(folder)
        code, _, err = program(student, "--output", folder, "--fresh")
        assert (code, err.count("\n")) == (2, 1)
        assert "is something else than an export" in err
        assert names(folder) == before


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_export_that_is_interrupted_leaves_the_earlier_one(
    program, student, tmp_path, monkeypatch, failure
):
    output = tmp_path / "mine"
    assert program(student, "--output", output)[0] == 0
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    def stop(*_: object) -> None:
        raise failure

    monkeypatch.setattr(write, "_write_tokenizer", stop)
    for target in (output, tmp_path / "new"):
        code, _, err = program(student, "--output", target, "--fresh", "--steps", 3)
        assert code == (130 if failure is KeyboardInterrupt else 2)
        assert err.count("\n") == (0 if failure is KeyboardInterrupt else 1)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert names(tmp_path) == {"run", "mine"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--steps", 0), "--steps: must be at least 1, got 0"),
        (("--temperature", 0), "--temperature: must be above 0, got 0.0"),
        (("--nucleus", 2), "--nucleus: must be in (0, 1], got 2.0"),
        (("--sampler", "euler", "--precision", "float32"), "--precision: euler draws in float64"),
        (("--max-shard-size", "big"), "--max-shard-size: 'big' is no size like 5GB"),
        (("--dtype", "float8"), "invalid choice: 'float8'"),
    ],
    ids=str,
)
def test_a_bad_option_is_named_and_nothing_is_written(program, student, tmp_path, more, message):
    code, _, err = program(student, "--output", tmp_path / "mine", *more)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert names(tmp_path) == {"run"}


def test_a_teacher_is_not_called_distilled(program, tmp_path):
    folder = write_student(tmp_path / "own", "mdlm")
    assert program(folder, "--output", tmp_path / "mine")[0] == 0
    assert "istill" not in (tmp_path / "mine" / "README.md").read_text()


def test_a_uniform_family_has_no_analytic_sampler(program, tmp_path):
    folder = write_student(tmp_path / "own", "udlm")
    code, _, err = program(folder, "--output", tmp_path / "mine", "--sampler", "analytic")
    assert code == 2
    assert err == "error: --sampler: analytic needs a masked family; use ancestral\n"


def test_a_model_that_cannot_be_used_is_one_line(program, student, tmp_path):
    def fails(*arguments: object) -> str:
        code, _, err = program(*arguments, "--output", tmp_path / "mine")
        assert code == 2
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    assert "model: no such file or folder: /nowhere" in fails("/nowhere")
    assert "neither a model folder nor a checkpoint nor a run that has one" in fails(tmp_path)
    (student / "tokenizer.json").unlink()
    assert "holds no tokenizer.json" in fails(student)
    (student / "model.safetensors").write_bytes(b"x")
    assert "not a safetensors file" in fails(student)
    (student / "config.json").write_text(json.dumps({"hidden_dim": 2, "n_blocks": 2}))
    assert "this is another kind of model" in fails(student)
    (tmp_path / "mine").write_text("")
    assert "is no folder" in fails(Path(idlm_ds.__file__).parent / "assets" / "teacher")
