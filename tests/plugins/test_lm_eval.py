"""What lm-eval loads from here, without lm-eval."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import idlm_ds
from idlm_ds.plugins import lm_eval_discovery
from idlm_ds.plugins.lm_eval_discovery import announce

ROOT = Path(idlm_ds.__file__).parents[1]


class Registry:
    """As much of lm-eval's registry as is used."""

    def __init__(self, *names: str) -> None:
        self.entries = dict.fromkeys(names)

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def register(self, name: str, *, target: str) -> None:
        self.entries[name] = target


def module(monkeypatch, name: str, **content: Any) -> None:
    made = ModuleType(name)
    made.__dict__.update(content)
    monkeypatch.setitem(sys.modules, name, made)


@pytest.fixture
def registry(monkeypatch) -> Registry:
    found = Registry("hf")
    for name in ("lm_eval", "lm_eval.api", "lm_eval.models"):
        module(monkeypatch, name)
    module(monkeypatch, "lm_eval.api.registry", model_registry=found)
    return found


def test_the_model_is_announced_where_lm_eval_runs(registry):
    announce()
    assert registry.entries == {"hf": None, "idlm_ds": lm_eval_discovery.TARGET}


def test_a_model_that_lm_eval_has_found_itself_is_left_alone(registry):
    registry.register("idlm_ds", target="its own")
    announce()
    assert registry.entries["idlm_ds"] == "its own"


def test_lm_eval_s_own_models_are_entered_first(registry, monkeypatch):
    order = []

    def load(name: str) -> None:
        order.append((name, "idlm_ds" in registry))

    monkeypatch.setattr(lm_eval_discovery, "import_module", load)
    announce()
    assert order == [("lm_eval.models", False)]


def test_nothing_is_announced_where_lm_eval_does_not_run_or_is_too_old(monkeypatch):
    def load(name: str) -> None:
        raise AssertionError(name)

    monkeypatch.setattr(lm_eval_discovery, "import_module", load)
    monkeypatch.delitem(sys.modules, "lm_eval.api.registry", raising=False)
    announce()
    module(monkeypatch, "lm_eval.api.registry")
    announce()


class Harness:
    def generate(self, requests, *, quiet: bool):
        return [("generate", *request, quiet) for request in requests]

    def score(self, requests, *, quiet: bool):
        return [("score", *request, quiet) for request in requests]

    def score_whole(self, texts, *, quiet: bool):
        return [("whole", text, quiet) for text in texts]

    def info(self):
        return {"idlm_ds": {}}


@pytest.fixture
def plugin(registry, monkeypatch):
    class LM:
        def __init__(self) -> None:
            self.is_ready = True

    module(monkeypatch, "lm_eval.api.model", LM=LM)
    name, _, attribute = lm_eval_discovery.TARGET.partition(":")
    monkeypatch.delitem(sys.modules, name, raising=False)
    loaded = importlib.import_module(name)
    yield loaded, getattr(loaded, attribute)
    del sys.modules[name]


def test_requests_are_handed_on_and_answers_handed_back(plugin, monkeypatch):
    loaded, model = plugin
    opened = []

    def from_arguments(arguments):
        opened.append(arguments)
        return Harness()

    monkeypatch.setattr(loaded, "Harness", SimpleNamespace(from_arguments=from_arguments))
    lm = model(pretrained="x", steps=4, batch_size=1)
    assert lm.is_ready
    assert opened == [{"pretrained": "x", "steps": 4, "batch_size": 1}]
    pairs = [SimpleNamespace(args=("a", "b")), SimpleNamespace(args=("c", "d"))]
    assert lm.generate_until(pairs) == [
        ("generate", "a", "b", False),
        ("generate", "c", "d", False),
    ]
    assert lm.loglikelihood(pairs[:1], disable_tqdm=True) == [("score", "a", "b", True)]
    assert lm.loglikelihood_rolling([SimpleNamespace(args=("a",))]) == [("whole", "a", False)]
    assert lm.get_model_info() == {"idlm_ds": {}}


def test_entry_points_lead_somewhere(plugin):
    setup = (ROOT / "setup.py").read_text()
    points = dict(
        re.findall(r'"(lm_eval\.models|torch\.backends)": \["[\w]+ = ([\w.:]+)"\]', setup)
    )
    assert points["lm_eval.models"] == lm_eval_discovery.TARGET
    assert re.search(r'"lm_eval.models": \["idlm_ds = ', setup)
    assert len(points) == 2
    for target in points.values():
        name, _, attribute = target.partition(":")
        assert callable(getattr(importlib.import_module(name), attribute))


def test_what_torch_calls_everywhere_imports_hardly_anything():
    source = Path(lm_eval_discovery.__file__).read_text()
    imported = re.findall(r"^(?:import|from) (\S+)", source, flags=re.MULTILINE)
    assert set(imported) <= {"sys", "importlib"}
