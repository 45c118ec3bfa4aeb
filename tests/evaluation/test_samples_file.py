import json
import math
import os

import pytest

from idlm_ds.evaluation.samples_file import write_samples
from idlm_ds.files import write_atomic


def test_the_samples_file_is_the_published_layout(tmp_path):
    path = tmp_path / "run" / "samples.json"
    texts = ['said "é"\n', ""]
    write_samples(path, texts, gen_ppl=32.5, entropy=5.25, provenance={"seed": 1, "steps": 4})
    expected = {
        "generative_ppl": 32.5,
        "entropy": 5.25,
        "generated_seqs": texts,
        "provenance": {"seed": 1, "steps": 4},
    }
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == expected
    assert list(json.loads(text)) == list(expected)
    assert '\n    "generative_ppl": 32.5' in text


def test_a_figure_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "samples.json"
    write_samples(path, ["a"], gen_ppl=1.5, entropy=0.0, provenance={})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_samples(path, ["b"], gen_ppl=math.inf, entropy=0.0, provenance={})
    assert path.read_bytes() == before


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def refuse(*_):
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
