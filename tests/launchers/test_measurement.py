"""The report of a run: not at all, later, and in several tries."""

import json
import re
import shlex
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.launchers.conftest import ROOT, Finished, finish, kill, run, start
from tests.launchers.test_distill import arguments

pytestmark = pytest.mark.dist

SETTINGS = [
    "eval.sampler=blockwise",
    "eval.block=4",
    "eval.remasking=random",
    "eval.steps=[4, 8]",
    "eval.teacher_steps=[4, 8, 16]",
    "eval.matched_steps=[4]",
    "eval.num_samples=24",
    "log.sample_every=5",
]
ROWS = [
    ("held-out", None),
    ("one real text repeated", None),
    *[("student", steps) for steps in (4, 8)],
    *[("teacher", steps) for steps in (4, 8, 16)],
    ("teacher (matched)", 4),
    ("teacher (matched in distinct-2)", 4),
]
CLOCK = ("seconds", "tokens_per_s")
"""Columns of rows that tell how long the drawing of a set took."""


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory) -> tuple[Path, Finished, float]:
    """A run without a report, whose judge does not exist yet, and the seconds it then took."""
    output = tmp_path_factory.mktemp("trained") / "run"
    judge = f"eval.judge={output.parent / 'judge'}"
    more = [*SETTINGS, judge, "eval.when=never"]
    processes = start("distill.py", [*arguments(toy, output), *more])
    done = finish(processes)
    seconds = time.time() - (output / "student" / "config.json").stat().st_mtime
    assert done.code == 0, done.err
    shutil.copytree(toy.folder / "judge", output.parent / "judge")
    return output, done, seconds


def said_command(done: Finished) -> list[str]:
    """The arguments of the command that the run said."""
    (line,) = (line for line in done.out.splitlines() if line.startswith("not measured"))
    python, launcher, *rest = shlex.split(line.partition("to measure it: ")[2])
    assert (python, launcher) == ("python", "launchers/distill.py")
    return rest


def rows(output: Path) -> list[dict]:
    """Rows of a report without what the clock says."""
    found = json.loads((output / "report.json").read_text())["rows"]
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in found]


def without_clock(output: Path) -> dict[str, str]:
    """Texts of a report and its samples, where times are left out."""
    page = (output / "report.md").read_text()
    table = [line for line in page.splitlines() if line.startswith("| ")]
    assert all(line.endswith(" |") for line in table)
    texts = {"report.md": re.sub(r"\| [^|]* \|$", "|", page, flags=re.MULTILINE)}
    for path in [output / "report.json", *sorted((output / "samples").iterdir())]:
        texts[path.name] = re.sub(r'"(seconds|tokens_per_s)": [0-9.e-]+', "", path.read_text())
    return texts


def test_a_run_that_is_not_measured_needs_no_judge_and_ends_with_its_student(trained):
    output, done, seconds = trained
    left = {path.name for path in output.iterdir()}
    assert left == {"checkpoints", "metrics.jsonl", "recipe.yaml", "run.json", "student"}
    assert "measuring" not in done.out
    student, command = done.out.splitlines()[-2:]
    assert student == f"student: {output / 'student'}"
    assert command.startswith("not measured (eval.when: never); to measure it: python launchers/")
    assert "8 steps, 16 samples" in done.out
    assert seconds < 30


@pytest.fixture(scope="module")
def measured(trained) -> tuple[Path, Finished]:
    """The same run, measured by the command that it said."""
    output, done, _ = trained
    later = run("distill.py", said_command(done))
    assert later.code == 0, later.err
    return output, later


def test_the_command_that_a_run_says_measures_it(measured):
    output, done = measured
    found = rows(output)
    assert [(row["model"], row["steps"]) for row in found] == ROWS
    samplers = {row["sampler"] for row in found if row["steps"] is not None}
    assert samplers == {"blockwise, block 4, random"}
    assert "sampler blockwise, block 4, random, precision float64" in done.out
    card = json.loads((output / "student" / "config.json").read_text())
    assert card["origin"]["student_updates"] == 10
    # A sequence of 16 tokens takes as many calls as there are steps.
    assert [row["nfe"] for row in found if row["model"] == "teacher"] == [4, 8, 16]
    assert len({row["source"] for row in found if row["model"].startswith("teacher")}) == 1
    assert len({row["source"] for row in found}) == 4


def unmeasured(run: Path, folder: Path) -> Path:
    """A copy of a run without all that its report has left."""
    output = Path(shutil.copytree(run, folder / "run"))
    for name in ("report.json", "report.md", "frontier.png"):
        (output / name).unlink(missing_ok=True)
    for name in ("samples", "evaluation"):
        shutil.rmtree(output / name, ignore_errors=True)
    return output


@pytest.mark.slow
@pytest.mark.parametrize("row", ["student at 4 steps", "teacher at 16 steps"])
def test_a_killed_report_goes_on_with_what_it_has_and_is_the_same_report(row, measured, tmp_path):
    whole, _ = measured
    output = unmeasured(whole, tmp_path)
    command = ["--config", str(ROOT / "ds_configs" / "zero3.json"), "--resume", "auto"]
    command += ["--recipe", str(output / "recipe.yaml"), "--output", str(output)]
    (process,) = start("distill.py", command)
    for line in process.stdout:
        if row in line:
            break
    kill([process])
    assert not (output / "report.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in (output / "evaluation").rglob("*.json")}
    assert len(kept) >= 2 * len(ROWS[: ROWS.index((row.split()[0], int(row.split()[2]))) + 1]) - 2
    # One file is damaged meanwhile, and one is somebody else's.
    samples = sorted((output / "evaluation" / "samples").glob("*.json"))
    spoilt = samples[0]
    spoilt.write_text(spoilt.read_text()[:-40])
    done = run("distill.py", command)
    assert done.code == 0, done.err
    assert done.out.count("is computed again") == 1
    assert {p for p, at in kept.items() if p.stat().st_mtime_ns != at} == {spoilt}
    assert rows(output) == rows(whole)
    assert without_clock(output) == {
        name: text.replace(str(whole), str(output)) for name, text in without_clock(whole).items()
    }
    assert (output / "frontier.png").read_bytes() == (whole / "frontier.png").read_bytes()


@pytest.mark.slow
def test_a_judge_that_fails_after_training_costs_a_line_and_no_student(toy, trained, tmp_path):
    output = unmeasured(trained[0], tmp_path)
    student = (output / "student" / "model.safetensors").read_bytes()
    judge = Path(shutil.copytree(toy.folder / "judge", tmp_path / "judge"))
    weights = load_file(judge / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, judge / "model.safetensors", metadata={"format": "pt"})
    command = [*arguments(toy, output, "--resume", "auto"), *SETTINGS, f"eval.judge={judge}"]
    for ranks in (1, 2):
        done = run("distill.py", command, ranks=ranks)
        assert done.code == 2
        assert done.err == (
            f"error: eval.judge: cannot load {judge}: judge: weight {name} is not finite\n"
        )
        assert f"student: {output / 'student'}" in done.out
        assert (output / "student" / "model.safetensors").read_bytes() == student
        assert not (output / "report.json").exists()


def test_the_said_command_is_one_a_shell_takes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "launchers"))
    import distill

    from idlm_ds.runs.measurement import measuring_command
    from idlm_ds.runs.session import RunOptions

    options = RunOptions(output=tmp_path / "a run's folder", config=Path("my zero3.json"))
    for ranks, launcher in ((1, ["python"]), (8, ["deepspeed", "--num_accelerators", "8"])):
        command = measuring_command(options, ranks)
        assert shlex.split(shlex.join(command)) == command
        assert command[: len(launcher)] == launcher
        assert (ROOT / command[len(launcher)]).is_file()
    monkeypatch.setattr(distill, "train", lambda recipe, args, run: seen.append((recipe, args)))
    seen: list = []
    options.output.mkdir()
    recipe = ROOT / "ds_configs" / "recipes" / "quickstart.yaml"
    (options.output / "recipe.yaml").write_text(recipe.read_text())
    distill.main(measuring_command(options, 1)[2:])
    ((recipe, args),) = seen
    assert recipe.eval.is_measured
    assert (args.output, args.resume) == (options.output, "auto")
    assert args.config == options.config
