"""Runs submitted to a real slurmctld and slurmd: one run, whatever happens to its job."""

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.daemons import Cluster
from tests.launchers.conftest import ROOT, Toy, hostile_build_environment, start
from tests.launchers.test_distill import finish, metrics
from tests.launchers.test_preemption import arguments

pytestmark = [pytest.mark.dist, pytest.mark.slow]

UPDATES = 30
LIMIT_S = 300


def asked(toy: Toy, output: Path, *more: str) -> list[str]:
    return [*arguments(toy, output), f"train.student_steps={UPDATES}", "checkpoint.every=0", *more]


def environment() -> dict[str, str]:
    """The environment of a user who has activated this interpreter's."""
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **own, "OMP_NUM_THREADS": "1", **hostile_build_environment()}


def submit(cluster: Cluster, script: str, options: list[str], arguments: list[str]) -> str:
    name = "%A-%a" if script == "sweep" else "%j"
    given = [*options, f"--output={cluster.root}/{name}.out"]
    path = str(ROOT / "launchers" / "slurm" / f"{script}.sbatch")
    return cluster.submit(*given, path, *arguments, cwd=ROOT, env=environment())


def said(cluster: Cluster, number: str) -> str:
    return (cluster.root / f"{number}.out").read_text()


def wait_for_phases(cluster: Cluster, number: str, output: Path, count: int) -> None:
    path, deadline = output / "metrics.jsonl", time.monotonic() + LIMIT_S
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < deadline, said(cluster, number)
        assert cluster.job(number)["JobState"] in {"PENDING", "RUNNING"}, said(cluster, number)
        time.sleep(0.05)


def student_hash(output: Path) -> str:
    return hashlib.sha256((output / "student" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def straight(toy, tmp_path_factory) -> Path:
    """The run of two ranks that a launcher starts."""
    output = tmp_path_factory.mktemp("straight") / "run"
    done = finish(start("distill.py", asked(toy, output), ranks=2))
    assert done.code == 0, done.err
    return output


def assert_same(output: Path, straight: Path) -> None:
    assert metrics(output) == metrics(straight)
    assert student_hash(output) == student_hash(straight)


def test_plain_srun_is_one_run_of_two_ranks(cluster, toy, straight, tmp_path):
    output = tmp_path / "run"
    command = ["srun", "-n2", "python", "launchers/distill.py", *asked(toy, output)]
    done = cluster.call(*command, cwd=ROOT, env=environment(), timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert '"world": 2' in (output / "run.json").read_text()
    assert_same(output, straight)


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("distill", ["--ntasks=2"]),
        ("distill", ["--gpus-per-node=2", "--ntasks-per-node=2", "--cpus-per-task=1"]),
        ("torchrun", ["--gpus-per-node=2", "--cpus-per-task=2"]),
    ],
    ids=lambda v: v[0] if isinstance(v, list) else v,
)
def test_a_job_that_made_room_is_started_again_and_is_the_same_run(
    script, options, cluster, toy, straight, tmp_path
):
    output = tmp_path / "run"
    # Of a job that is started again, --fresh would delete what it has done.
    number = submit(cluster, script, options, [*asked(toy, output), "--fresh"])
    wait_for_phases(cluster, number, output, 5)
    assert cluster.call("scancel", "--signal=USR1", number).returncode == 0
    deadline = time.monotonic() + 60
    while cluster.job(number)["Restarts"] == "0":
        assert time.monotonic() < deadline, said(cluster, number)
        time.sleep(0.2)
    job = cluster.wait(number, limit=LIMIT_S)
    text = said(cluster, number)
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("COMPLETED", "0:0", "1"), text
    assert text.count("stopped: SIGUSR1 received; continue with --resume auto\n") == 1
    assert text.count("\nstarting again\n") == 1
    assert f"resume: {output}/checkpoints/step-" in text
    assert_same(output, straight)


def test_a_cancelled_job_stays_cancelled(cluster, toy, tmp_path):
    output = tmp_path / "run"
    number = submit(cluster, "distill", ["--ntasks=2"], asked(toy, output))
    wait_for_phases(cluster, number, output, 3)
    cluster.call("scancel", number)
    job = cluster.wait(number, limit=60)
    time.sleep(8)
    assert (job["JobState"], job["Restarts"]) == ("CANCELLED", "0")
    assert cluster.job(number)["JobState"] == "CANCELLED", said(cluster, number)


def test_a_mistake_ends_the_job_with_its_line_and_code(cluster, toy, tmp_path):
    arguments = asked(toy, tmp_path / "run", "optim.lr=fast")
    number = submit(cluster, "distill", ["--ntasks=2"], arguments)
    job = cluster.wait(number, limit=60)
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "2:0", "0")
    text = said(cluster, number)
    assert "error: optim.lr" in text
    assert "Traceback" not in text
    assert "not started again: exit code 2" in text


def test_a_sweep_runs_a_line_of_its_file_in_each_task(cluster, toy, tmp_path):
    overrides = tmp_path / "overrides.txt"
    lines = ["optim.lr=3e-4 train.student_steps=1", f"seed=7 --output {tmp_path / 'second'}"]
    overrides.write_text("\n".join(lines) + "\n")
    output = tmp_path / "all"
    shared = [*asked(toy, output), "train.student_steps=2"]
    del shared[2:4]
    number = submit(cluster, "sweep", ["--array=1-3"], [str(overrides), *shared])
    text = {}
    for task in ("1", "2", "3"):
        cluster.wait(f"{number}_{task}", limit=LIMIT_S)
        text[task] = (cluster.root / f"{number}-{task}.out").read_text()
    made = ROOT / "runs" / f"sweep-{number}"
    first, second = made / "1", tmp_path / "second"
    try:
        assert "lr: 0.0003" in (first / "recipe.yaml").read_text(), text["1"]
        assert "seed: 7" in (second / "recipe.yaml").read_text(), text["2"]
        assert (len(metrics(first)), len(metrics(second))) == (2, 4)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    assert f"line 3 of {overrides} is empty or missing" in text["3"]
