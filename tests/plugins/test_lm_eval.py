"""lm-eval's command line with this package's model: with a stub, and with lm-eval if installed."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import idlm_ds
from idlm_ds.build.locate import ASSETS
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.evaluation.lm_harness import Harness
from tests.toy_models import random_teacher

ROOT = Path(idlm_ds.__file__).parents[1]
TOOL = ROOT / "tools" / "lm_eval.py"
STUB = Path(__file__).with_name("stub")


def run(*arguments: str, package: Path | None = STUB) -> subprocess.CompletedProcess[str]:
    """Run the tool from the root; ``package`` is the folder of the lm-eval to be used."""
    paths = [str(ROOT), *([str(package)] if package else [])]
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "teacher"
    random_teacher(folder, Tokenizer(ASSETS / "tokenizer"))
    return folder


def test_the_command_line_is_lm_eval_s_own_with_one_more_model(teacher):
    arguments = ["--model", "idlm_ds", "--model_args", f"pretrained={teacher},mc_samples=4"]
    done = run(*arguments, "--tasks", "any")
    assert done.returncode == 0, done.stderr
    said, result = done.stdout.splitlines()
    assert said.startswith("loglikelihood: 1 sequences, NFE ")
    result = json.loads(result)
    assert result["argv"] == [*arguments, "--tasks", "any"]
    assert result["models"] == ["hf", "idlm_ds"]
    harness = Harness.from_arguments({"pretrained": str(teacher), "mc_samples": 4})
    assert result["answers"] == [[*harness.score([("The", " people")], quiet=True)[0]]]


def test_a_wrong_model_argument_is_one_line_and_exit_code_2(teacher):
    done = run("--model", "idlm_ds", "--model_args", f"pretrained={teacher},stepz=4")
    assert done.returncode == 2
    assert done.stderr == "error: model_args.stepz: unknown key; did you mean steps?\n"


def test_what_lm_eval_refuses_is_refused_in_its_own_words():
    done = run("--nonsense")
    assert done.returncode == 2
    assert "unrecognized arguments: --nonsense" in done.stderr


def test_a_missing_package_is_one_line_and_exit_code_2(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['lm_eval'] = None\n")
    done = run("--model", "idlm_ds", package=tmp_path)
    assert done.returncode == 2
    expected = "error: lm-eval: the package is missing; pip install 'idlm_ds[eval]'\n"
    assert done.stderr == expected


def is_installed() -> bool:
    try:
        return bool(version("lm_eval"))
    except PackageNotFoundError:
        return False


if is_installed():

    @pytest.mark.slow
    def test_the_installed_lm_eval_evaluates_the_embedded_teacher(tmp_path):
        task = "tests/plugins/tasks/sotu_choice.yaml"
        model_args = "pretrained=assets:teacher,steps=8"
        arguments = ["--model", "idlm_ds", "--model_args", model_args, "--tasks", task]
        done = run(*arguments, "--output_path", str(tmp_path / "results.json"), package=None)
        assert done.returncode == 0, done.stderr
        assert "loglikelihood: 32 sequences, NFE 6.12" in done.stdout
        (file,) = tmp_path.rglob("*.json")
        results = json.loads(file.read_text())
        assert results["results"]["sotu_choice"]["acc,none"] == 1.0
        assert results["config"]["idlm_ds"]["loglikelihood"]["nfe"] == 6.125


def module(monkeypatch, name: str, **content: Any) -> None:
    made = ModuleType(name)
    made.__dict__.update(content)
    monkeypatch.setitem(sys.modules, name, made)


@pytest.fixture
def plugin(monkeypatch):
    class LM:
        def __init__(self) -> None:
            self.is_ready = True

    for name in ("lm_eval", "lm_eval.api", "lm_eval.models"):
        module(monkeypatch, name)
    module(monkeypatch, "lm_eval.api.model", LM=LM)
    name = "idlm_ds.plugins.lm_eval_model"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name)
    del sys.modules[name]


def test_a_model_that_lm_eval_has_found_itself_is_left_alone(plugin, monkeypatch):
    registered = {"hf": None, "idlm_ds": "by the entry point"}
    module(monkeypatch, "lm_eval.api.registry", MODEL_REGISTRY=registered)
    # Under another name: this one is lm-eval's.
    spec = importlib.util.spec_from_file_location("lm_eval_tool", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.register()
    assert registered == {"hf": None, "idlm_ds": "by the entry point"}


class Answers:
    """Stands in for the harness."""

    def generate(self, requests, *, quiet: bool):
        return [("generate", *request, quiet) for request in requests]

    def score(self, requests, *, quiet: bool):
        return [("score", *request, quiet) for request in requests]

    def score_whole(self, texts, *, quiet: bool):
        return [("whole", text, quiet) for text in texts]

    def info(self):
        return {"idlm_ds": {}}


def test_requests_are_handed_on_and_answers_handed_back(plugin, monkeypatch):
    opened = []

    def from_arguments(arguments):
        opened.append(arguments)
        return Answers()

    monkeypatch.setattr(plugin, "Harness", SimpleNamespace(from_arguments=from_arguments))
    lm = plugin.DiffusionLM(pretrained="x", steps=4, batch_size=1)
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


def test_the_only_entry_point_is_lm_eval_s_and_leads_to_the_model(plugin):
    """A group that torch or Python reads would run code of this package in every program."""
    setup = (ROOT / "setup.py").read_text()
    groups = re.search(r"entry_points=\{(.*?)\}", setup, flags=re.DOTALL)[1]
    points = re.findall(r'"([\w.]+)": \["([\w]+) = ([\w.:]+)"\]', groups)
    assert groups.count("[") == len(points) == 1
    ((group, name, target),) = points
    assert (group, name) == ("lm_eval.models", "idlm_ds")
    path, _, attribute = target.partition(":")
    assert getattr(importlib.import_module(path), attribute) is plugin.DiffusionLM
