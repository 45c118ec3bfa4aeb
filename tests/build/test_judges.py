"""Judges by the names people give them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from idlm_ds.build import judges
from idlm_ds.build.judges import find_judge, load_judge
from idlm_ds.build.locate import ASSETS
from idlm_ds.errors import UserError
from tests.metrics.judges import save_judge


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


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_judge(tmp_path / "tiny")


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def store(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def configured(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def without(folder: Path, name: str) -> None:
    store(folder, {n: w for n, w in stored(folder).items() if n != name})


NORM = "transformer.h.1.ln_2.weight"
MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut weights": (lambda f: cut(f / "model.safetensors"), "incomplete metadata"),
    "no weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "header"),
    "a weight missing": (lambda f: without(f, NORM), f"it lacks 1 weights, such as {NORM}"),
    "a weight of another shape": (
        lambda f: store(f, stored(f) | {NORM: torch.ones(3)}),
        f"{NORM} has shape [3], not [16]",
    ),
    "a cut configuration": (lambda f: cut(f / "config.json"), "config.json"),
    "an unknown kind": (lambda f: configured(f, model_type="nonesuch"), "nonesuch"),
    "a kind that writes no text": (lambda f: configured(f, model_type="vit"), "ViTConfig"),
    "a smaller vocabulary": (
        lambda f: configured(f, vocab_size=5) or without_words(f, 5),
        "its tokenizer has 9 tokens, its vocabulary 5",
    ),
    "a cut tokenizer": (lambda f: cut(f / "tokenizer.json"), "cannot load"),
}


def without_words(folder: Path, count: int) -> None:
    name = "transformer.wte.weight"
    store(folder, stored(folder) | {name: stored(folder)[name][:count].clone()})


@pytest.mark.parametrize(("spoil", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_damaged_judge_is_refused_without_reading_weights(spoil, words, folder, monkeypatch):
    assert find_judge(str(folder)).path == folder
    monkeypatch.setattr(judges, "open_judge", lambda *_, **__: pytest.fail("weights were read"))
    spoil(folder)
    with pytest.raises(UserError) as caught:
        find_judge(str(folder))
    line = str(caught.value)
    assert line.startswith(f"eval.judge: cannot load {folder}: ")
    assert words in line
    assert line.isprintable()
    assert len(line) - len(str(folder)) <= 160


def test_weights_under_the_names_of_older_releases_are_left_to_the_library(folder):
    wanted = load_judge(str(folder), "cpu").score(["a b c"])[0]
    plain = {name.removeprefix("transformer."): weight for name, weight in stored(folder).items()}
    store(folder, plain)
    assert load_judge(str(folder), "cpu").score(["a b c"])[0].equal(wanted)
    store(folder, plain | {"h.0.attn.bias": torch.ones(1, 1, 12, 12)})
    assert find_judge(str(folder)).path == folder


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_when_they_are_read(value, folder):
    weights = stored(folder)
    weights[NORM][3] = value
    store(folder, weights)
    found = find_judge(str(folder))
    with pytest.raises(UserError, match=rf"^eval\.judge: cannot load .*{NORM} is not finite$"):
        found.load("cpu")


def test_the_hash_of_a_folder_is_that_of_what_scores_depend_on_beside_weights(folder):
    before = find_judge(str(folder)).fingerprint
    (folder / "README.md").write_text("about")
    assert find_judge(str(folder)).fingerprint == before
    path = folder / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    assert find_judge(str(folder)).fingerprint != before


@pytest.mark.parametrize("name", ["special_tokens_map.json", "added_tokens.json"])
def test_a_file_that_tokenizers_may_read_counts_where_it_is(name, folder):
    before = find_judge(str(folder)).fingerprint
    (folder / name).write_text("{}")
    assert find_judge(str(folder)).fingerprint != before


def test_a_judge_that_does_not_fit_into_memory_costs_a_line(folder, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.\nMore")

    monkeypatch.setattr(judges, "open_judge", full)
    with pytest.raises(
        UserError, match=r"^eval\.judge: cannot load .*Tried to allocate 9\.00 GiB\.$"
    ):
        find_judge(str(folder)).load("cpu")
