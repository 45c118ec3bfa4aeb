"""Each launcher starts one run, and the failure of one rank ends it within seconds."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.launchers.conftest import ROOT, hostile_build_environment

PROGRAM = str(ROOT / "tests" / "launchers" / "failing.py")
BIN = Path(sys.executable).parent
GROUP = re.compile(
    r"^(RANK|WORLD_SIZE|LOCAL_\w+|MASTER_\w+|(SLURM|OMPI|PMI|PMIX|TORCHELASTIC)_\w+)$"
)
GONE_WITHIN_S = 30
"""After a failure, until no process is left."""

LINE = "data.corpus: no such file: /data/x"


@dataclass(frozen=True)
class Ended:
    """A process that has ended, and when."""

    code: int
    out: str
    err: str
    at: float


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def start(command: list[str], **variables: str) -> subprocess.Popen:
    """Start a process that knows of no launcher but the given variables."""
    plain = {name: value for name, value in os.environ.items() if not GROUP.match(name)}
    return subprocess.Popen(
        command,
        env=plain
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        | {"PATH": f"{BIN}:{os.environ['PATH']}"}
        | hostile_build_environment()
        | variables,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(*processes: subprocess.Popen, limit: float = 200) -> list[Ended]:
    """Wait for all processes; none may be left behind."""
    deadline = time.monotonic() + limit
    ended = {}
    try:
        for process in processes:
            out, err = process.communicate(timeout=max(1, deadline - time.monotonic()))
            ended[process.pid] = Ended(process.returncode, out, err, time.time())
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return list(ended.values())


def by_srun(spec: str) -> list[Ended]:
    """Two tasks with what srun sets, which by itself ends none of them when another fails."""
    job = str(os.getpid() * 1000 + time.monotonic_ns() % 1000)
    return finish(
        *(
            start(
                [sys.executable, PROGRAM, spec],
                SLURM_JOB_ID=job,
                SLURM_NTASKS="2",
                SLURM_STEP_ID="0",
                SLURM_STEP_NUM_TASKS="2",
                SLURM_STEP_NODELIST="n1",
                SLURM_STEP_TASKS_PER_NODE="2",
                SLURM_NODEID="0",
                SLURM_PROCID=str(rank),
                SLURM_LOCALID=str(rank),
            )
            for rank in range(2)
        )
    )


def by_deepspeed(spec: str) -> Ended:
    command = ["deepspeed", "--num_accelerators", "2", "--master_port", free_port()]
    return finish(start([str(BIN / command[0]), *command[1:], PROGRAM, spec]))[0]


def by_torchrun(spec: str) -> Ended:
    command = ["torchrun", "--nproc-per-node", "2", "--master-port", free_port()]
    return finish(start([str(BIN / command[0]), *command[1:], PROGRAM, spec]))[0]


def failed_at(*ended: Ended) -> float:
    return min(float(t) for e in ended for t in re.findall(r"fails at ([\d.]+)", e.err))


def errors(ended: Ended) -> list[str]:
    """What our program says is wrong, other than in torchrun's summary."""
    return re.findall(r"^error.*$", ended.err, re.MULTILINE)


def test_tasks_of_srun_are_one_run_and_all_end_when_one_fails():
    first, second = by_srun("1:alone:user")
    assert first.out == "rank 0 of 2\n"
    assert second.out == "rank 1 of 2\n"
    assert errors(first) == []
    assert errors(second) == [f"error (rank 1 on {socket.gethostname()}): {LINE}"]
    assert "Traceback" not in first.err + second.err
    assert (first.code, second.code) == (2, 2)
    assert max(first.at, second.at) - failed_at(second) < GONE_WITHIN_S


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RANK": "1"}, "WORLD_SIZE is not"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, but WORLD_SIZE is 2"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "n", "MASTER_PORT": "0"}, "MASTER_PORT"),
        ({"OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_RANK"),
    ],
)
def test_an_environment_that_does_not_fit_is_one_line(variables, words):
    (ended,) = finish(start([sys.executable, PROGRAM, "all:never:x"], **variables))
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert words in ended.err


def test_a_mistake_that_all_ranks_find_before_they_meet_is_one_line():
    first, second = by_srun("all:before:user")
    assert first.err == f"error: {LINE}\n"
    assert second.err == ""
    assert (first.code, second.code) == (2, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "code", "lines"),
    [
        ("all:never:x", 0, ([], [])),
        ("0:alone:user", 2, ([f"error: {LINE}"], [])),
        ("all:alone:user", 2, ([f"error: {LINE}"], [])),
        ("1:before:user", 2, ([], [f"error (rank 1 on HOST): {LINE}"])),
        ("0:before:user", 2, ([f"error: {LINE}"], [])),
        ("1:alone:numerics", 6, ([], ["error (rank 1 on HOST): the loss is not finite"])),
        ("1:alone:bug", 1, ([], ["error (rank 1 on HOST):"])),
    ],
)
def test_the_rank_that_fails_speaks_and_all_leave_with_its_code(spec, code, lines):
    ended = by_srun(spec)
    assert [e.code for e in ended] == [code, code]
    host = socket.gethostname()
    assert [errors(e) for e in ended] == [[s.replace("HOST", host) for s in p] for p in lines]
    traces = [e.err.count("Traceback") for e in ended]
    assert traces == ([0, 1] if spec.endswith("bug") else [0, 0])


@pytest.mark.slow
def test_a_bug_on_all_ranks_shows_one_traceback():
    ended = by_srun("all:alone:bug")
    assert [e.code for e in ended] == [1, 1]
    assert sum(e.err.count("RuntimeError: a bug") for e in ended) == 1


@pytest.mark.slow
def test_nobody_waits_for_a_rank_that_was_killed():
    first, second = by_srun("0:alone:killed")
    assert first.code == -signal.SIGKILL
    assert second.code == 1
    assert second.at - failed_at(first) < GONE_WITHIN_S


@pytest.mark.slow
def test_a_rank_that_never_comes_is_missed():
    (ended,) = finish(
        start(
            [sys.executable, PROGRAM, "all:never:x"],
            RANK="0",
            WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=free_port(),
            IDLM_JOIN_SECONDS="2",
        )
    )
    assert ended.code == 2
    assert errors(ended) == [
        "error: 1 of 2 processes did not come within 2 s (IDLM_JOIN_SECONDS): rank 1"
    ]
    assert "Traceback" not in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("launch", [by_deepspeed, by_torchrun])
@pytest.mark.parametrize(("spec", "speaker"), [("1:alone:user", 1), ("all:alone:user", 0)])
def test_launchers_show_the_error_and_end(launch, spec, speaker):
    ended = launch(spec)
    name = f"error (rank 1 on {socket.gethostname()})" if speaker else "error"
    assert errors(ended) == [f"{name}: {LINE}"]
    assert ended.at - failed_at(ended) < GONE_WITHIN_S
    if launch is by_deepspeed:
        assert ended.code == 2
        assert "Traceback" not in ended.err
    else:
        # torchrun's own exit code and summary; the summary repeats the line at its end.
        assert ended.code == 1
        root_cause = ended.err.split("Root Cause")[1]
        assert "exitcode  : 2 (pid: " in root_cause
        assert f"traceback : {name}: {LINE}" in root_cause


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "words"),
    [(["--teacher", "/nowhere"], "teacher.path: no such file or folder: /nowhere"), ([], None)],
    ids=["teacher", "folder"],
)
def test_a_mistake_of_one_host_ends_a_distillation_before_it_writes(more, words, toy, tmp_path):
    """Rank 1 sees another teacher, or another output folder, than rank 0."""
    port = free_port()
    outputs = [tmp_path / "a", tmp_path / ("a" if words else "b")]
    config = str(ROOT / "ds_configs" / "zero2.json")
    common = ["--config", config, *toy.overrides]
    first, second = finish(
        *(
            start(
                [sys.executable, str(ROOT / "launchers" / "distill.py")]
                + ["--output", str(outputs[rank]), *common, *(more if rank else [])],
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE="2",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
            )
            for rank in range(2)
        )
    )
    host = socket.gethostname()
    assert (first.code, second.code) == (2, 2)
    if words:
        assert errors(first) == []
        assert second.err.startswith(f"error (rank 1 on {host}): {words}")
    else:
        assert errors(second) == []
        assert errors(first) == [
            f"error: --output: rank 1 on {host} does not see {outputs[1]} of rank 0; "
            "name a folder on a file system that all hosts share"
        ]
    assert "Traceback" not in first.err + second.err
    assert not any(folder.exists() for folder in outputs)
