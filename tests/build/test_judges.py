"""Judges by the names people give them."""

import pytest

from idlm_ds.build import judges
from idlm_ds.build.judges import load_judge
from idlm_ds.build.locate import ASSETS
from idlm_ds.errors import UserError


def test_the_published_judge_goes_by_its_short_name(monkeypatch):
    specs = []

    def locate(spec: str, key: str):
        specs.append((spec, key))
        return ASSETS / "judge"

    monkeypatch.setattr(judges, "locate", locate)
    load_judge("gpt2-large", "cpu", "--judge")
    load_judge("assets:judge", "cpu", "--judge")
    assert [spec for spec, _ in specs] == ["hf:openai-community/gpt2-large", "assets:judge"]


def test_a_packed_judge_says_how_to_unpack_it(tmp_path):
    (tmp_path / "m.gguf").touch()
    with pytest.raises(UserError, match=r"^--judge: .*m\.gguf must be expanded first: .*--gguf "):
        load_judge(str(tmp_path / "m.gguf"), "cpu", "--judge")


def test_a_folder_that_is_no_judge_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^eval\.judge: cannot load"):
        load_judge(str(tmp_path), "cpu")
