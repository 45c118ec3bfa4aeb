"""The real launcher makes room for a signal."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from idlm_ds.runs.requeue import NOTE
from tests.launchers.conftest import finish, run, start
from tests.launchers.test_distill import UPDATES, arguments, assert_same_run

pytestmark = pytest.mark.dist


def wait_for_phases(output: Path, processes: list[subprocess.Popen], count: int) -> None:
    path, deadline = output / "metrics.jsonl", time.monotonic() + 200
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < deadline, "the run never got that far"
        assert all(p.poll() is None for p in processes), finish(processes).err
        time.sleep(0.02)


def wait_for_handlers(process: subprocess.Popen, number: signal.Signals) -> None:
    """Wait until the kernel knows that the process catches a signal."""
    status, deadline = Path(f"/proc/{process.pid}/status"), time.monotonic() + 60
    while not int(re.search(r"SigCgt:\s+(\w+)", status.read_text())[1], 16) >> (number - 1) & 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def endings(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    outputs = [process.communicate(timeout=200) for process in processes]
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


def test_a_signal_to_one_rank_ends_both_after_the_same_phase(toy, tmp_path):
    output = tmp_path / "run"
    processes = start("distill.py", arguments(toy, output), ranks=2)
    wait_for_phases(output, processes, 3)
    processes[1].send_signal(signal.SIGUSR1)
    (first, said, err), (second, nothing, other_err) = endings(processes)
    assert (first, second, err, other_err, nothing) == (75, 75, "", "", "")
    assert said.endswith("\nstopped: SIGUSR1 received; continue with --resume auto\n")
    note = json.loads((output / NOTE).read_text())
    assert note["start"] == 0
    assert 3 <= note["phase"] < 2 * UPDATES
    assert (output / "checkpoints" / f"step-{note['phase']}").is_dir()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_a_run_loads_ends_it_with_one_line(number, toy, tmp_path):
    (process,) = start("distill.py", arguments(toy, tmp_path / "run"))
    wait_for_handlers(process, number)
    process.send_signal(number)
    ((code, out, err),) = endings([process])
    assert (code, out) == (75, "")
    assert err == f"stopped by {number.name} before training began; nothing to save\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_that_made_room_twice_is_the_same_run(toy, tmp_path):
    whole, output = tmp_path / "whole", tmp_path / "run"
    assert run("distill.py", arguments(toy, whole), ranks=2).code == 0
    for wanted, number in ((4, signal.SIGTERM), (9, signal.SIGUSR1)):
        processes = start("distill.py", arguments(toy, output, "--resume", "auto"), ranks=2)
        wait_for_phases(output, processes, wanted)
        for process in processes:
            process.send_signal(number)
        assert [code for code, _, _ in endings(processes)] == [75, 75]
    done = run("distill.py", arguments(toy, output, "--resume", "auto"), ranks=2)
    assert done.code == 0, done.err
    assert not (output / NOTE).exists()
    assert_same_run(whole, output)


@pytest.mark.slow
def test_a_rank_that_waits_for_the_others_leaves_too(toy, tmp_path):
    first, second = start("distill.py", arguments(toy, tmp_path / "run"), ranks=2)
    second.kill()
    second.communicate()
    time.sleep(30)
    assert first.poll() is None
    first.send_signal(signal.SIGUSR1)
    ((code, _, _),) = endings([first])
    assert code == 75
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_signal_in_the_report_ends_the_run_after_a_row(toy, tmp_path):
    output = tmp_path / "run"
    more = ["train.student_steps=1", "eval.num_samples=64", "eval.steps=[1, 2, 4, 8, 16, 32]"]
    asked = [*arguments(toy, output), "data.length=8", *more]
    (process,) = start("distill.py", asked)
    for line in process.stdout:
        if line.startswith("  student at 1 steps"):
            process.send_signal(signal.SIGUSR1)
            break
    ((code, out, err),) = endings([process])
    assert (code, err) == (75, "")
    assert out.endswith("stopped: SIGUSR1 received; continue with --resume auto\n")
    assert json.loads((output / NOTE).read_text())["phase"] == 2
    assert (output / "checkpoints" / "step-2").is_dir()
    assert not (output / "report.json").exists()
    done = run("distill.py", [*asked, "--resume", "auto"])
    assert done.code == 0, done.err
    assert (output / "report.json").exists()
