"""The laboratory runs as a program, or says in one line why it does not."""

import json
import sys
from pathlib import Path
from typing import get_args

import pytest

import idlm_ds
from idlm_ds.laboratory.languages import LANGUAGES
from idlm_ds.laboratory.options import LanguageName

from .test_prepare_data import run

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
import laboratory


def test_every_language_that_can_be_typed_is_there():
    assert tuple(LANGUAGES) == get_args(LanguageName)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--language", "french"], "invalid choice: 'french'"),
        (["--updates", 3], "--updates: must be at least 32, got 3"),
        (["--steps", 0], "--steps: must be at least 1, got 0"),
        (["--draws", 5000], "--draws: must be a multiple of 4096, got 5000"),
        (["--language", "copy", "copy"], "--language: copy is given twice"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, monkeypatch, capsys):
    assert run(arguments, monkeypatch, laboratory) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.slow
def test_everything_is_measured_and_written(tmp_path, monkeypatch, capsys):
    arguments = ["--language", "copy", "--updates", 32, "--steps", 1, 2, "--draws", 512]
    assert run([*arguments, "--output", tmp_path], monkeypatch, laboratory) == 0
    content = json.loads((tmp_path / "laboratory.json").read_text())
    assert {"updates", "draws with z", "commit", "torch"} <= content["settings"].keys()
    rows = {(row["line"], row["steps"]): row for row in content["rows"]}
    assert len(rows) == 9 * 2
    assert rows["exact teacher", 1]["kl"] == pytest.approx(6.238, abs=0.01)
    assert rows["IDLM + z", 1]["how"] == "512 draws"
    assert rows["SDTT", 2]["how"] == "exact"
    assert (tmp_path / "laboratory.png").stat().st_size < 100_000
    table = capsys.readouterr().out
    assert "copy: KL(truth | law) of a sentence in nats" in table
    assert "updates 32, batch 256" in table
