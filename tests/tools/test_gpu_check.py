"""The check for GPUs goes through all its sections, and a failure in one ends only that one."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import idlm_ds
from idlm_ds.kernels import projection

from .test_prepare_data import run

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
import gpu_check
from bench import gpu_sections, row_blocks
from bench.gpu_sections import SECTIONS, TINY

TOOLS = Path(gpu_check.__file__).parent
CPU = torch.device("cpu")
SCRIPT = TOOLS / "gpu_check.sh"


def shell(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": sys.executable}
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def section(name: str, output: Path, monkeypatch) -> int:
    return run(["--tiny", "--section", name, "--output", output], monkeypatch, gpu_check)


def test_the_script_is_sound():
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    if checker := shutil.which("shellcheck"):
        assert subprocess.run([checker, SCRIPT]).returncode == 0


def test_a_dry_run_prints_every_section_and_runs_nothing(tmp_path):
    done = shell("--dry-run", "--tiny", tmp_path / "out")
    commands = [line for line in done.stdout.splitlines() if line.startswith("timeout")]
    assert [line.split("--section ")[1].split()[0] for line in commands] == list(SECTIONS)
    assert all(line.endswith("--tiny") for line in commands)
    # Eight minutes, with half a minute for the summary and the starts.
    assert sum(int(line.split()[1]) for line in commands) <= 470
    assert not (tmp_path / "out").exists()


def test_an_unknown_option_is_refused():
    done = shell("--fast")
    assert (done.returncode, done.stderr) == (2, "error: unknown option --fast\n")


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("versions", ["card", "driver", "torch", "triton", "deepspeed", "flash-attn"]),
        ("kernels", ["bench_kernels.py"]),
    ],
)
def test_a_section_writes_its_rows(name, rows, tmp_path, monkeypatch, capsys):
    assert section(name, tmp_path, monkeypatch) == 0
    saved = json.loads((tmp_path / f"{name}.json").read_text())
    assert [row["name"] for row in saved["rows"]] == rows
    assert saved["problem"] is None
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


@pytest.mark.slow
def test_the_students_phase_is_measured_in_both_precisions():
    rows = list(gpu_sections.student_phase(replace(TINY, rows=TINY.rows[1:]), CPU))
    names = [row["name"] for row in rows]
    for label in ("bf16", "fp32"):
        assert f"published V=200 P=32 {label}" in names
        assert f"ours V=200 P=32 {label}" in names
        assert f"ours, unblocked V=200 P=32 {label}" in names
    assert all("failed" not in row.get("note", "") for row in rows)


def test_attention_is_switched(monkeypatch):
    seen = []
    monkeypatch.setattr(gpu_sections, "_iteration_row", lambda *a: seen.append(is_on()) or {})
    monkeypatch.setattr(gpu_sections.importlib.util, "find_spec", lambda name: object())

    def is_on() -> bool:
        return gpu_sections.attention.HAS_FLASH_ATTN

    rows = list(gpu_sections.flash_attention(TINY, CPU))
    assert seen == [False, True]
    assert [row["name"].split(",")[1] for row in rows] == [" flash-attn off", " flash-attn on"]


def test_a_section_that_fails_is_one_line_and_the_summary_says_so(tmp_path, monkeypatch, capsys):
    def broken(scale, device):
        yield {"name": "first", "ms": 1.0}
        raise RuntimeError("CUDA error\nand much more")

    monkeypatch.setitem(gpu_check.SECTIONS, "iteration", broken)
    assert section("iteration", tmp_path, monkeypatch) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors == ["error: iteration: RuntimeError: CUDA error"]
    assert run(["--tiny", "--summary", "--output", tmp_path], monkeypatch, gpu_check) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "iteration: RuntimeError: CUDA error" in lines
    assert "kernels: was not measured" in lines
    (joined,) = tmp_path.glob("gpu_check_*.json")
    parts = json.loads(joined.read_text())["sections"]
    assert [part["section"] for part in parts] == list(SECTIONS)
    assert parts[3]["rows"] == [{"name": "first", "ms": 1.0}]


def test_a_row_that_fails_leaves_the_others():
    def too_much() -> dict[str, float]:
        raise torch.OutOfMemoryError("out of memory\nTried to allocate")

    assert gpu_sections._tried("a", too_much) == {"name": "a", "note": "failed: out of memory"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_full_sizes_are_refused(tmp_path, monkeypatch, capsys):
    assert run(["--section", "versions", "--output", tmp_path], monkeypatch, gpu_check) == 2
    assert "no GPU; --tiny" in capsys.readouterr().err


def test_rows_are_computed_as_many_at_a_time_as_asked():
    before = projection.block_rows(50_000, CPU)
    with row_blocks.rows_at_a_time(3 * before):
        assert projection.block_rows(50_000, CPU) == 3 * before
    assert projection.block_rows(50_000, CPU) == before


@pytest.mark.slow
def test_the_script_goes_through_every_section(tmp_path):
    done = shell("--tiny", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert {file.stem for file in tmp_path.glob("*.json")} >= set(SECTIONS)
