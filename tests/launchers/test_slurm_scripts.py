"""The batch scripts, with stubs in place of SLURM's programs; tests/cluster has the real ones."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from deepspeed.launcher.runner import fetch_hostfile

from tests.launchers.conftest import ROOT

SCRIPTS = ROOT / "launchers" / "slurm"
NOTE = {"job": "17", "restarts": 0, "start": 0, "phase": 4, "rows": 0}
JOB = {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "4", "SLURM_JOB_NUM_NODES": "2"}
CONFIG = ["--config", "ds_configs/zero3.json"]

RECORD = """
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[1]), *sys.argv[2:]]) + "\\n")
"""
STUBS = {
    "srun": 'eval "${STEP:-}"',
    "squeue": 'echo "${STATE:-RUNNING}"',
    "scontrol": """case "$1 $2" in
"show hostnames") printf "n1\\nn2\\n" ;;
"show node") printf "NodeName=%s CPUTot=4\\n   NodeAddr=10.1.1.1 NodeHostName=%s\\n" "$3" "$3" ;;
esac""",
    "torchrun": ":",
}


@pytest.fixture
def batch(tmp_path):
    """Start a batch script as slurmd would; ``calls`` are what it started."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "record.py").write_text(RECORD)
    for name, body in STUBS.items():
        recorded = f'"{sys.executable}" "{programs}/record.py" {name} "$@"'
        (programs / name).write_text(f"#!/bin/bash\n{recorded}\n{body}\n")
        (programs / name).chmod(0o755)
    calls = tmp_path / "calls"
    unset = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SRUN"))}
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    common = unset | JOB | {"PATH": path, "PYTHONPATH": str(ROOT), "CALLS": str(calls)}

    def start(script: str, *arguments: str, cwd: Path = ROOT, **environment: str):
        return subprocess.Popen(
            ["bash", str(SCRIPTS / f"{script}.sbatch"), *arguments],
            env=common | environment,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(script: str, *arguments: str, **more) -> tuple[int, str, list[list[str]]]:
        process = start(script, *arguments, **more)
        said, _ = process.communicate(timeout=60)
        lines = calls.read_text().splitlines() if calls.exists() else []
        return process.returncode, said, [json.loads(line) for line in lines]

    run.start, run.calls = start, calls
    return run


def leaves_note(output: Path, **changes) -> str:
    """Return shell commands of a step that makes room."""
    note = json.dumps({**NOTE, **changes})
    return f"mkdir -p {output}/checkpoints/step-4; echo '{note}' > {output}/preempted.json; "


def test_arguments_reach_the_launcher_as_they_are(batch):
    words = ["--config", "a b.json", "optim.lr=1e-4", "it's", '"', "$HOME", "*", ""]
    code, said, calls = batch("distill", *words)
    step = ["srun", "--kill-on-bad-exit=1", "python", "launchers/distill.py", *words]
    assert (code, said, calls) == (0, "", [step])


@pytest.mark.parametrize("code", [75, 143, 1])
def test_a_step_that_made_room_is_started_again(code, batch, tmp_path):
    arguments = [*CONFIG, "--output", str(tmp_path / "run"), "seed=3"]
    step = leaves_note(tmp_path / "run") + f"exit {code}"
    ended, said, calls = batch("distill", *arguments, STEP=step)
    assert (ended, said, calls[-1]) == (code, "starting again\n", ["scontrol", "requeue", "17"])


@pytest.mark.parametrize(
    ("step", "code", "line"),
    [
        ("exit 75", 75, "not started again: exit code 75, and no phase was saved for a signal"),
        ("exit 6", 6, "not started again: exit code 6, and no phase was saved for a signal"),
        ({"phase": 4, "start": 4}, 75, "not started again: it did not advance from phase 4"),
        ({"job": "16"}, 75, "not started again: exit code 75, and no phase was saved"),
    ],
)
def test_another_step_is_not_and_one_line_says_why(step, code, line, batch, tmp_path):
    output = tmp_path / "run"
    if isinstance(step, dict):
        step = leaves_note(output, **step) + "exit 75"
    ended, said, calls = batch("distill", *CONFIG, "--output", str(output), STEP=step)
    assert ended == code
    assert said.startswith(line)
    assert said.count("\n") == 1
    assert [call for call in calls if call[0] == "scontrol"] == []


@pytest.mark.parametrize("mistake", ["optim.lr=fast", "--outptu", "--recipe=nowhere"])
def test_a_mistake_is_not_said_twice(mistake, batch):
    code, said, _ = batch("distill", *CONFIG, mistake, STEP="exit 2")
    assert (code, said) == (2, "not started again: exit code 2\n")


def test_a_cancelled_job_is_not_started_again(batch, tmp_path):
    step = leaves_note(tmp_path / "run") + "exit 75"
    arguments = [*CONFIG, "--output", str(tmp_path / "run")]
    code, said, calls = batch("distill", *arguments, STEP=step, STATE="CANCELLED")
    assert (code, said) == (75, "")
    assert [call[0] for call in calls] == ["srun", "squeue"]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_to_the_shell_reaches_the_step_as_usr1(number, batch, tmp_path):
    step = leaves_note(tmp_path / "run") + (
        "trap 'echo got USR1; exit 75' USR1; echo ready; while :; do sleep 0.05; done"
    )
    process = batch.start("distill", *CONFIG, "--output", str(tmp_path / "run"), STEP=step)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (75, "got USR1\nstarting again\n")


def test_tasks_are_as_many_as_gpus(batch):
    code, said, calls = batch("distill", SLURM_GPUS_ON_NODE="8")
    assert (code, calls) == (2, [])
    assert said.endswith("distill.sbatch: 4 tasks for 16 GPUs; give --ntasks-per-node=8\n")
    assert batch("distill", SLURM_GPUS_ON_NODE="2")[0] == 0


def test_cores_of_a_task_are_passed_on(batch):
    step = 'echo "$SRUN_CPUS_PER_TASK"'
    assert batch("distill", STEP=step, SLURM_CPUS_PER_TASK="8")[1] == "8\n"


def test_a_line_of_overrides_comes_after_the_arguments_of_all(batch, tmp_path):
    file = tmp_path / "lines"
    file.write_text("optim.lr=1e-4\n  optim.lr=3e-4   eval.steps=[1,2] \n\n")
    array = {"SLURM_ARRAY_JOB_ID": "16", "SLURM_ARRAY_TASK_ID": "2"}
    code, _, calls = batch("sweep", str(file), *CONFIG, **array)
    output = ["--output", "runs/sweep-16/2"]
    assert code == 0
    assert calls[0][4:] == [*output, *CONFIG, "optim.lr=3e-4", "eval.steps=[1,2]"]


@pytest.mark.parametrize(
    ("arguments", "task", "line"),
    [
        (["lines"], "", "submit it as an array"),
        ([], "1", "its first argument is a file of overrides"),
        (["nowhere"], "1", "its first argument is a file of overrides"),
        (["lines"], "2", "line 2 of "),
        (["lines"], "9", "line 9 of "),
    ],
)
def test_a_sweep_that_cannot_start_says_why(arguments, task, line, batch, tmp_path):
    (tmp_path / "lines").write_text("optim.lr=1e-4\n \n")
    given = [str(tmp_path / name) for name in arguments]
    code, said, calls = batch("sweep", *given, SLURM_ARRAY_TASK_ID=task)
    assert (code, calls) == (2, [])
    assert line in said
    assert said.count("\n") == 1


def test_torchrun_meets_on_the_first_node(batch):
    environment = {"SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_GPUS_ON_NODE": "8"}
    step = 'shift; "$@"'
    code, said, calls = batch("torchrun", "--output", "a b", STEP=step, **environment)
    assert (code, said) == (0, "")
    assert calls[-1] == [
        *(
            "torchrun",
            "--nnodes=2",
            "--node-rank=1",
            "--nproc-per-node=8",
            "--master-addr=10.1.1.1",
        ),
        *("--master-port=20017", "launchers/distill.py", "--output", "a b"),
    ]


@pytest.mark.parametrize("script", ["distill", "sweep", "torchrun"])
def test_a_script_submitted_from_elsewhere_says_so(script, batch, tmp_path):
    code, said, calls = batch(script, cwd=tmp_path)
    assert (code, calls) == (2, [])
    assert "submit it from the root of the repository" in said.splitlines()[-1]
    assert said.count("\n") == 1


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.s*")), ids=lambda p: p.name)
def test_scripts_parse_and_hold_nothing_of_one_machine_or_recipe(path):
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    code = "\n".join(x for x in path.read_text().splitlines() if not re.match(r"#(?!SBATCH)", x))
    assert re.findall(r"(?<![\w.}])/(?!dev/null)\w+", code) == []
    assert re.findall(r"\b(?:train|optim|objective|data|eval|teacher)\.\w+=", code) == []


@pytest.mark.parametrize("name", ["distill", "sweep", "torchrun"])
def test_scripts_ask_for_a_signal_in_time_and_for_another_start(name):
    text = (SCRIPTS / f"{name}.sbatch").read_text()
    for option in ("--signal=USR1@600", "--requeue", "--open-mode=append"):
        assert f"#SBATCH {option}\n" in text
    assert "supervise srun --kill-on-bad-exit=1 " in text


def test_deepspeed_reads_the_example_of_a_hostfile():
    hosts = fetch_hostfile(str(ROOT / "launchers" / "hostfile.example"))
    assert dict(hosts) == {"node-a": 8, "node-b": 8}
