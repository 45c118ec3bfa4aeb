"""The comparison runs, and says what it measured."""

import json
import sys
from pathlib import Path

import pytest

import idlm_ds
from tests.data.toy import jsonl

from .test_prepare_data import run

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
import bench_data


@pytest.mark.slow
def test_both_ways_are_measured_on_the_same_texts(tmp_path, monkeypatch, capsys):
    source = jsonl(tmp_path / "a.jsonl", [{"text": f"{i} my fellow citizens"} for i in range(2000)])
    out = tmp_path / "figures.json"
    arguments = ["--source", source, "--rounds", 1, "--json", out]
    assert run(arguments, monkeypatch, bench_data) == 0
    best = json.loads(out.read_text())["best"]
    assert len(best) == 4
    assert len({figures["tokens"] for figures in best.values()}) == 1
    table = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in table[2:]] == list(best)
