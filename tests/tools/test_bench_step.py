"""The comparison of training steps runs, and says what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import idlm_ds

from .test_prepare_data import run

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
import bench_step

TOOLS = Path(bench_step.__file__).parent

SIZES = ["--hidden", 16, "--blocks", 1, "--heads", 2, "--batch", 2, "--length", 8, "--vocab", 50]
TINY = [*SIZES, "--threads", 1, "--rounds", 2]


def test_variants_are_measured_in_turns_and_written(tmp_path, monkeypatch, capsys):
    out = tmp_path / "figures.json"
    assert run([*TINY, "--anomaly", "--logged", "--json", out], monkeypatch, bench_step) == 0
    saved = json.loads(out.read_text())
    assert {"date", "commit", "cpu", "threads", "torch"} <= saved["machine"].keys()
    assert saved["settings"]["sizes"]["vocab"] == 50
    rows = saved["figures"]["variants"]
    assert list(rows) == [
        "published (foreach AdamW)",
        "published, as shipped (anomaly detection on)",
        "ours (fused AdamW)",
        "ours, logged (fused AdamW)",
    ]
    for row in rows.values():
        assert len(row["rounds"]) == 2
        assert row["of_floor"] > 0
    table = capsys.readouterr().out.splitlines()
    assert "an iteration needs" in table[1]
    assert [line[:46].strip() for line in table[3:]] == list(rows)


@pytest.mark.slow
def test_memory_is_measured_in_processes_of_their_own(tmp_path, monkeypatch, capsys):
    out = tmp_path / "figures.json"
    more = ["--vocab", 3000, "--length", 64, "--memory", "--rounds", 1, "--optimizer", "loop"]
    monkeypatch.setattr(bench_step, "__file__", str(TOOLS / "bench_step.py"))
    assert run([*TINY, *more, "--json", out], monkeypatch, bench_step) == 0
    rows = json.loads(out.read_text())["figures"]
    assert list(rows) == ["published", "ours"]
    assert {row["kind"] for row in rows.values()} == {"loop"}
    assert rows["published"]["passes_student"] > 2 * 64 * 3000 * 4
    assert "published (loop AdamW)" in capsys.readouterr().out


def test_a_mistake_is_one_line(monkeypatch, capsys):
    assert run(["--family", "nothing"], monkeypatch, bench_step) == 2
    assert "invalid choice: 'nothing'" in capsys.readouterr().err


@pytest.mark.slow
def test_stages_are_compared_through_real_engines():
    command = [sys.executable, TOOLS / "bench_step.py", *TINY, "--engines", "zero1", "zero3"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split(" (")[0] for line in lines[5:7]] == ["ours, zero1", "ours, zero3"]
    assert lines[-1].startswith("zero3 over zero1: ")
