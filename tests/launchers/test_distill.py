"""The main program, run as users run it."""

import hashlib
import json
import random
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from idlm_ds.checkpoints import transaction
from idlm_ds.checkpoints.formats.content import whole
from idlm_ds.checkpoints.rank_files import RankFiles
from idlm_ds.train.loop import CLOCK_FIELDS
from tests.launchers.conftest import ROOT, Toy, finish, kill, run, start

pytestmark = pytest.mark.dist

UPDATES = 10


GAP_ROUNDING = 1e-6
"""The gap is a difference of two float32 losses of about 8 nats."""


def arguments(
    toy: Toy, output: Path, *more: str, config: str = "zero3.json", teacher: str = "teacher"
) -> list[str]:
    return [
        "--config",
        str(ROOT / "ds_configs" / config),
        "--output",
        str(output),
        *more,
        *toy.overrides,
        f"teacher.path={toy.folder / teacher}",
        f"train.student_steps={UPDATES}",
        "checkpoint.every=2",
    ]


def metrics(output: Path) -> list[dict]:
    """The metrics file without what the clock says."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCK_FIELDS} for line in lines]


def newest(output: Path) -> Path:
    return output / "checkpoints" / f"step-{2 * UPDATES}"


def tensors(folder: Path) -> dict[str, dict]:
    files = sorted(folder.rglob("*.safetensors"))
    assert files
    return {str(f.relative_to(folder)): load_file(f) for f in files}


def assert_same_run(one: Path, other: Path) -> None:
    """Same metrics and the same bits in student, fake, both optimizers and both means."""
    assert metrics(one) == metrics(other)
    for folder in ("student", newest(one).relative_to(one)):
        a, b = tensors(one / folder), tensors(other / folder)
        assert a.keys() == b.keys()
        for file, values in a.items():
            assert values.keys() == b[file].keys()
            different = [n for n, v in values.items() if not v.equal(b[file][n])]
            assert not different, (file, different)


def student_print(output: Path) -> str:
    """SHA-256 of the student's weights."""
    return hashlib.sha256((output / "student" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def uninterrupted(toy, tmp_path_factory):
    """One whole run of each kind, made when first asked for."""
    made = {}

    def get(ranks: int, config: str = "zero3.json", teacher: str = "teacher") -> Path:
        key = (ranks, config, teacher)
        if key not in made:
            output = tmp_path_factory.mktemp("whole")
            asked = arguments(toy, output, config=config, teacher=teacher)
            done = run("distill.py", asked, ranks=ranks)
            assert done.code == 0, done.err
            made[key] = output
        return made[key]

    return get


@pytest.mark.parametrize(
    ("ranks", "config", "teacher"),
    [
        pytest.param(1, "zero3.json", "teacher", marks=pytest.mark.slow),
        (2, "zero3.json", "dropout"),
        *[
            pytest.param(ranks, config, "teacher", marks=pytest.mark.slow)
            for config in ("zero2_offload.json", "zero3_offload.json")
            for ranks in (1, 2)
        ],
    ],
)
def test_a_killed_and_resumed_run_is_the_same_run(
    ranks, config, teacher, toy, uninterrupted, tmp_path
):
    whole = uninterrupted(ranks, config, teacher)
    moment = random.Random(ranks)
    output = tmp_path / "run"
    options = {"config": config, "teacher": teacher}
    processes = start("distill.py", arguments(toy, output, **options), ranks=ranks)
    wanted = moment.randrange(3, 2 * UPDATES - 3)
    deadline = time.monotonic() + 200
    while len(_lines(output)) < wanted:
        assert time.monotonic() < deadline, "the run never got that far"
        assert all(p.poll() is None for p in processes), finish(processes).err
        time.sleep(moment.random() * 0.05)
    kill(processes)
    assert not (output / "student").exists()

    again = arguments(toy, output, "--resume", "auto", **options)
    done = run("distill.py", again, ranks=ranks)
    assert done.code == 0, done.err
    assert_same_run(whole, output)
    assert student_print(whole) == student_print(output)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "node"])
def test_who_shares_a_copy_of_the_teacher_changes_nothing(sharding, toy, uninterrupted, tmp_path):
    done = run("distill.py", arguments(toy, tmp_path, f"teacher.sharding={sharding}"), ranks=2)
    assert done.code == 0, done.err
    assert_same_run(uninterrupted(2), tmp_path)


def _lines(output: Path) -> list[str]:
    path = output / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


SLOW_DISK = "../tests/launchers/slow_disk.py"
SLOWLY, IN_TIME, NOWHERE_FULL = "0.3", "0", "-1"


def _written(output: Path) -> int:
    """Step of the newest checkpoint that is there."""
    return max((int(p.name[5:]) for p in (output / "checkpoints").glob("step-*")), default=0)


def _overtaken(output: Path) -> bool:
    """Whether a checkpoint is being written of which training has gone on already."""
    started = [int(p.name[10:]) for p in (output / "checkpoints").glob(".tmp-step-*")]
    return any(len(_lines(output)) > step for step in started)


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_a_kill_during_a_write_beside_training_costs_what_came_after_the_last_checkpoint(
    kills, toy, uninterrupted, tmp_path
):
    whole, output, moment = uninterrupted(2, teacher="dropout"), tmp_path / "run", random.Random(5)
    more = ["checkpoint.asynchronous=true", "--resume", "auto"]
    asked = arguments(toy, output, *more, teacher="dropout")
    last = 2 * UPDATES - 8  # with one to come that is not the end of the run
    for number in range(kills):
        if (before := _written(output)) > last:
            assert number >= 3
            break
        processes = start(SLOW_DISK, [SLOWLY, NOWHERE_FULL, *asked], ranks=2)
        deadline = time.monotonic() + 200
        while _written(output) < max(1, before) or not _overtaken(output):
            assert time.monotonic() < deadline, "no checkpoint was overtaken"
            assert all(p.poll() is None for p in processes), finish(processes).err
            time.sleep(moment.random() * 0.02)
        time.sleep(moment.random() * 0.3 * (number > 0))
        kill(processes)
    saved = _written(output)
    assert saved > 0
    assert not (output / "student").exists()

    done = run(SLOW_DISK, [IN_TIME, NOWHERE_FULL, *asked], ranks=2)
    assert done.code == 0, done.err
    assert f"resume: {output}/checkpoints/step-{saved}, phase {saved}\n" in done.out
    assert_same_run(whole, output)


@pytest.mark.slow
@pytest.mark.parametrize("asynchronous", ["true", "false"])
def test_a_full_disk_of_one_rank_is_one_line_and_leaves_the_last_checkpoint(
    asynchronous, toy, tmp_path
):
    asked = arguments(toy, tmp_path, f"checkpoint.asynchronous={asynchronous}")
    processes = start(SLOW_DISK, [IN_TIME, "1", *asked], ranks=2)
    done = finish(processes)
    assert [p.returncode for p in processes] == [2, 2]
    assert done.err.startswith(
        f"error: {tmp_path}/checkpoints: the checkpoint of phase 8 cannot be written: "
        "No space left on device (rank 1, host "
    )
    assert done.err.count("\n") == 1
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-4"]
    assert transaction.problem_with(tmp_path / "checkpoints" / "step-4") is None


@pytest.mark.parametrize(
    ("ranks", "config"),
    [
        (2, "zero3.json"),
        pytest.param(2, "zero2.json", marks=pytest.mark.slow),
        pytest.param(2, "zero1.json", marks=pytest.mark.slow),
        pytest.param(2, "zero2_offload.json", marks=pytest.mark.slow),
        pytest.param(2, "zero3_offload.json", marks=pytest.mark.slow),
    ],
)
def test_losses_do_not_depend_on_ranks_or_stage(ranks, config, uninterrupted):
    one, other = metrics(uninterrupted(1)), metrics(uninterrupted(ranks, config))
    assert len(one) == len(other) == 2 * UPDATES
    for a, b in zip(one, other, strict=True):
        assert (a["step"], a["phase"]) == (b["step"], b["phase"])
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4, abs=GAP_ROUNDING)


def test_a_run_leaves_what_it_promises(uninterrupted):
    output = uninterrupted(1)
    report = json.loads((output / "report.json").read_text())
    shown = [(r["model"], r["steps"]) for r in report["rows"]]
    assert shown == [
        ("held-out", None),
        ("one real text repeated", None),
        ("student", 1),
        ("student", 2),
        ("teacher", 2),
        ("teacher (matched)", 2),
        ("teacher (matched in distinct-2)", 2),
    ]
    for row in report["rows"]:
        assert row["num_samples"] == 4
        if "matched_in" in row and row["not_matched"] is not None:
            assert row["gen_ppl"] is row["gen_ppl_se"] is None
            continue
        assert row["gen_ppl"] > 1
        assert row["gen_ppl_se"] > 0 or row["model"] == "one real text repeated"
    heldout, _, student = report["rows"][:3]
    assert heldout["temperature"] is heldout["nucleus"] is None
    assert (student["seeds"], student["masking"]) == ([1234], "published")
    assert (output / "samples" / "teacher_matched-2.json").exists()
    samples = json.loads((output / "samples" / "student-1.json").read_text())
    assert samples["generative_ppl"] == student["gen_ppl"]
    assert samples["provenance"]["judge"] == student["judge"]
    assert len(samples["generated_seqs"]) == 4
    run_json = json.loads((output / "run.json").read_text())
    assert run_json["world"] == 1
    assert run_json["versions"]["deepspeed"]
    assert "student_steps: 10" in (output / "recipe.yaml").read_text()
    assert (output / "frontier.png").stat().st_size > 5000
    kept = sorted(p.name for p in (output / "checkpoints").iterdir())
    assert kept == ["step-16", "step-20"]


def assert_is_running_mean(student: Path, checkpoint: Path) -> None:
    """The student's weights are the float32 mean that the ranks keep, bit for bit."""
    mean, stored = RankFiles(checkpoint / "student"), load_file(student / "model.safetensors")
    assert stored.keys() == mean.names()
    for name, weight in stored.items():
        assert weight.equal(whole(mean, name, torch.float32))


def test_the_student_is_the_float32_running_mean(uninterrupted):
    output = uninterrupted(1)
    assert_is_running_mean(output / "student", newest(output))


@pytest.mark.slow
def test_a_finished_run_writes_its_student_again_and_one_in_bfloat16_is_not_rounded(toy, tmp_path):
    asked = [*arguments(toy, tmp_path, config="zero2.json"), "train.precision=bf16"]
    done = run("distill.py", asked, ranks=2)
    assert done.code == 0, done.err
    assert_is_running_mean(tmp_path / "student", newest(tmp_path))
    weights = load_file(tmp_path / "student" / "model.safetensors").values()
    assert not all(w.equal(w.bfloat16().float()) for w in weights)
    (tmp_path / "student" / "model.safetensors").unlink()
    again = run("distill.py", [*asked, "--resume"], ranks=2)
    assert again.code == 0, again.err
    assert f"resume: {newest(tmp_path)}, phase {2 * UPDATES}\n" in again.out
    assert_is_running_mean(tmp_path / "student", newest(tmp_path))


def test_the_saved_student_speaks(uninterrupted, tmp_path):
    student = uninterrupted(1) / "student"
    asked = ["--checkpoint", str(student), "--steps", "3", "--num-samples", "2"]
    once = run("sample.py", asked)
    again = run("sample.py", asked)
    assert once.code == 0, once.err
    assert once.out.count("| ") == 2
    assert "steps 3" in once.out
    assert _texts(once.out) == _texts(again.out)


def _texts(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("|")]


def test_a_run_is_not_overwritten_by_accident(uninterrupted, toy):
    output = uninterrupted(1)
    before = (output / "metrics.jsonl").read_bytes()
    done = run("distill.py", arguments(toy, output))
    assert done.code == 2
    assert "--resume auto" in done.err
    assert (output / "metrics.jsonl").read_bytes() == before


def test_resuming_with_another_recipe_is_refused(uninterrupted, toy):
    done = run(
        "distill.py", [*arguments(toy, uninterrupted(1), "--resume", "auto"), "optim.lr=0.5"]
    )
    assert done.code == 2
    assert "optim.lr=" in done.err


def test_resuming_with_another_teacher_is_refused(uninterrupted, toy):
    moved = arguments(toy, uninterrupted(1), "--resume", "auto", teacher="dropout")
    done = run("distill.py", moved)
    assert done.code == 2
    assert "another teacher" in done.err


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoints(toy, tmp_path):
    done = run("distill.py", [*arguments(toy, tmp_path), "optim.lr=1e30", "optim.clip=0.0"])
    assert done.code == 6
    assert done.err.strip().startswith("error: step ")
    assert "loss is" in done.err
    assert not (tmp_path / "student").exists()


@pytest.mark.slow
def test_a_run_with_a_latent_ends_with_a_student_that_has_it(toy, tmp_path):
    output = tmp_path / "run"
    more = ["student.latent.size=8", "objective.full_noise_fraction=0.25", "log.sample_every=5"]
    done = run("distill.py", [*arguments(toy, output), *more], ranks=2)
    assert done.code == 0, done.err
    rows = json.loads((output / "report.json").read_text())["rows"]
    assert [(row["model"], row["latent"]) for row in rows] == [
        *[("held-out", None), ("one real text repeated", None)],
        *[("student", 8)] * 2,
        *[("teacher", None), ("teacher (matched)", None)],
        ("teacher (matched in distinct-2)", None),
    ]
    assert "student at 1 steps, latent 8: GenPPL" in done.out
    card = json.loads((output / "student" / "config.json").read_text())
    assert (card["network"]["latent"], card["network"]["latent_rate"]) == (8, 5.0)
    state = tensors(newest(output))
    names = {name for file in state if file.startswith("student") for name in state[file]}
    assert {f"{kind}:latent_map.weight" for kind in ("ema", "weight")} <= names
    assert not [
        name
        for file in state
        if file.startswith("fake")
        for name in state[file]
        if "latent" in name
    ]
    asked = ["--checkpoint", str(output / "student"), "--steps", "1", "--num-samples", "2"]
    spoken = run("sample.py", asked)
    assert spoken.code == 0, spoken.err
    assert ", latent 8," in spoken.out
    again = arguments(toy, output, "--resume", "auto")
    refused = run("distill.py", [*again, *more[1:], "student.latent.size=4"])
    assert refused.code == 2
    assert "student.latent.size=8, now 4" in refused.err
    fewer = run("distill.py", [*again, *more[1:]])
    assert fewer.code == 2
    assert "student.latent.size=8, now 0" in fewer.err
