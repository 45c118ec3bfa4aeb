"""A report of a network with LLaDA's vocabulary needs little memory beside the weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import idlm_ds

ROOT = Path(idlm_ds.__file__).parents[1]

BEYOND = 2e9
"""Bytes beside the weights of network and judge; Python and its libraries take 0.65 GB of them."""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_blockwise_report_needs_two_gigabytes_beyond_the_weights(dtype, tmp_path):
    command = [sys.executable, "-m", "tests.evaluation.large_vocabulary", str(tmp_path), dtype]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    print({name: f"{value / 1e9:.2f} GB" for name, value in measured.items()})
    assert 0.3e9 < measured["parameters"] < 0.35e9
    assert measured["weights"] > measured["parameters"] * {"float32": 4, "bfloat16": 2}[dtype]
    assert measured["before"] < measured["peak"] < measured["weights"] + BEYOND
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    sampler = "blockwise, block 128, low_confidence"
    assert [row["sampler"] for row in rows] == [None, None, sampler]
