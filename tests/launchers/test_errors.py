"""Every mistake is one line and exit code 2, before anything is built or written."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idlm_ds.cli import launch
from tests.launchers.conftest import ROOT

sys.path.insert(0, str(ROOT / "launchers"))
import distill
import pretrain
import sample

ZERO3 = str(ROOT / "ds_configs" / "zero3.json")


def error_of(program, arguments, monkeypatch, capsys) -> str:
    monkeypatch.setattr(sys, "argv", ["launcher", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        launch(program.main)
    err = capsys.readouterr().err
    assert ended.value.code == 2, err
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    return err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["objective.fake_stpes=2"], ["objective.fake_stpes", "did you mean fake_steps"]),
        (["train.micro_batch=four"], ["train.micro_batch", "four"]),
        (["train.kernels=fast"], ["train.kernels", "auto", "reference", "triton"]),
        (["train.micro_batch=5"], ["train.global_batch", "8", "5"]),
        (["--recipe", "quikstart"], ["quikstart", "quickstart"]),
        (["--teacher", "/nowhere"], ["teacher.path", "/nowhere"]),
        (["data.corpus=/nowhere.txt"], ["data.corpus", "/nowhere.txt"]),
        (["data.tokenizer=/nowhere"], ["data.tokenizer", "/nowhere"]),
        (["eval.judge=/nowhere"], ["eval.judge", "/nowhere"]),
        (["data.length=100000"], ["data.length", "100000"]),
        (["eval.num_samples=100000"], ["100000 held-out windows"]),
        (["process.eps=0.01"], ["process.eps", "0.01", "0.001"]),
        (["--outptu", "x"], ["--outptu"]),
        (["--output", "/proc/idlm"], ["--output", "/proc/idlm"]),
        (["--resume", "/nowhere"], ["--resume", "/nowhere"]),
        (["--resume", "auto", "--fresh"], ["--fresh", "--resume"]),
        (["--fresh", "--resume=runs/x/checkpoints/step-2"], ["--fresh", "--resume"]),
    ],
    ids=lambda v: v[0] if isinstance(v, list) else None,
)
def test_a_bad_argument_is_named(more, words, toy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--config", ZERO3, *toy.overrides, *more]
    err = error_of(distill, arguments, monkeypatch, capsys)
    for word in words:
        assert word in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs" / "quickstart" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["not readable as JSON"]),
        ('{"zero_optimization": {"stage": 0}}', ["stage is 0", "allowed: 1, 2, 3"]),
        ('{"zero_optimisation": {"stage": 3}}', ["did you mean zero_optimization"]),
        (
            '{"zero_optimization": {"stage": 3}, "gradient_clipping": 0.5}',
            ["gradient_clipping is 0.5", "optim.clip", "1.0"],
        ),
        (
            '{"zero_optimization": {"stage": 3}, "optimizer": {"type": "Adam"}}',
            ["optimizer", "optim.*"],
        ),
        (
            '{"zero_optimization": {"stage": 3}, "activation_checkpointing": {}}',
            ["activation_checkpointing", "train.checkpoint_activations"],
        ),
        (
            '{"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}',
            ["offload_param.device: does something at stage 3 only, and this is 2"],
        ),
        (
            '{"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}',
            ["offload_param.device: must be cpu or none, got 'nvme'; NVMe is not supported"],
        ),
        ('{"zero_optimization": {"stage": 3}, "sparse_gradients": true}', ["removed"]),
        ('{"zero_optimization": {"stage": 1e999}}', ["stage is inf", "allowed: 1, 2, 3"]),
        ("[" * 100_000, ["nested too deeply"]),
    ],
)
def test_a_bad_engine_file_is_named(text, words, toy, tmp_path, monkeypatch, capsys):
    config = tmp_path / "bad.json"
    config.write_text(text)
    err = error_of(distill, ["--config", config, *toy.overrides], monkeypatch, capsys)
    for word in ["bad.json", *words]:
        assert word in err


CPU = {"device": "cpu"}


@pytest.mark.parametrize(
    ("sharding", "zero", "words"),
    [
        ("nodes", {"stage": 3}, "teacher.sharding: expected one of world, node, none, got 'nodes'"),
        ("node", {"stage": 2}, "teacher.sharding: node needs ZeRO-3, but own.json says stage 2"),
        ("node", {"stage": 1}, "teacher.sharding: node needs ZeRO-3, but own.json says stage 1"),
        (
            "none",
            {"stage": 3, "offload_param": CPU, "offload_optimizer": CPU},
            "own.json offloads parameters (offload_param); allowed with it: world, node",
        ),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_teacher_that_cannot_be_shared_as_asked_is_refused(
    sharding, zero, words, more, toy, tmp_path, monkeypatch, capsys
):
    (tmp_path / "own.json").write_text(json.dumps({"zero_optimization": zero}))
    arguments = ["--config", tmp_path / "own.json", "--output", tmp_path / "run", *more]
    arguments += [*toy.overrides, f"teacher.sharding={sharding}"]
    err = error_of(distill, arguments, monkeypatch, capsys)
    assert words in err
    assert len(err) <= 200
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sharding", "zero"),
    [
        *[("none", {"stage": stage}) for stage in (1, 2, 3)],
        ("none", {"stage": 3, "offload_optimizer": CPU}),
        ("none", {"stage": 3, "offload_param": {"device": "none"}}),
        ("node", {"stage": 3}),
        ("node", {"stage": 3, "offload_param": CPU, "offload_optimizer": CPU}),
        *[("world", {"stage": stage}) for stage in (1, 2, 3)],
    ],
)
def test_a_teacher_that_can_be_shared_as_asked_is_taken(
    sharding, zero, toy, tmp_path, monkeypatch, capsys
):
    """On one process too, so that a recipe for a cluster can be looked at anywhere."""
    (tmp_path / "own.json").write_text(json.dumps({"zero_optimization": zero}))
    arguments = ["launcher", "--config", str(tmp_path / "own.json"), "--dry-run", *toy.overrides]
    monkeypatch.setattr(sys, "argv", [*arguments, f"teacher.sharding={sharding}"])
    with pytest.raises(SystemExit) as ended:
        launch(distill.main)
    assert ended.value.code == 0, capsys.readouterr().err


@pytest.fixture
def retold(toy, tmp_path):
    """The toy teacher with another configuration."""

    def retold(change: Callable[[dict[str, Any]], object]) -> Path:
        folder = Path(shutil.copytree(toy.folder / "teacher", tmp_path / "teacher"))
        card = json.loads((folder / "config.json").read_text())
        change(card)
        (folder / "config.json").write_text(json.dumps(card))
        return folder

    return retold


def refusal(teacher: Path, toy, monkeypatch, capsys) -> str:
    arguments = ["--config", ZERO3, *toy.overrides, "--teacher", teacher]
    return error_of(distill, arguments, monkeypatch, capsys)


def test_a_teacher_of_another_size_than_it_says_is_refused(retold, toy, monkeypatch, capsys):
    folder = retold(lambda card: card["network"].update(vocab_size=50258))
    err = refusal(folder, toy, monkeypatch, capsys)
    assert "vocab_embed.embedding: shape [2049, " in err
    assert "[50258, " in err


@pytest.mark.parametrize(
    ("process", "words"),
    [({}, "names no diffusion family"), ({"name": "mdml"}, "was trained with 'mdml'")],
)
def test_a_teacher_of_an_unknown_family_is_refused(
    process, words, retold, toy, monkeypatch, capsys
):
    folder = retold(lambda card: card.update(process=process))
    assert words in refusal(folder, toy, monkeypatch, capsys)


def test_longer_sequences_than_the_teacher_knows_are_refused(retold, toy, monkeypatch, capsys):
    folder = retold(lambda card: card.update(length=8))
    err = refusal(folder, toy, monkeypatch, capsys)
    assert err.startswith("error: data.length: 16, but ")
    assert err.endswith("trained on sequences of 8\n")


def test_a_judge_is_not_a_teacher(toy, monkeypatch, capsys):
    assert "not one of: model folder" in refusal(toy.folder / "judge", toy, monkeypatch, capsys)


def test_a_recipe_of_the_other_kind_is_refused(monkeypatch, capsys):
    arguments = ["--config", ZERO3, "--recipe", "quickstart"]
    assert "launchers/distill.py" in error_of(pretrain, arguments, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--steps", "0"], "--steps"),
        (["--temperature", "0"], "--temperature"),
        (["--num-samples", "x"], "--num-samples"),
    ],
)
def test_sampling_refuses_nonsense(more, word, toy, monkeypatch, capsys):
    arguments = ["--checkpoint", toy.folder / "teacher", *more]
    assert word in error_of(sample, arguments, monkeypatch, capsys)


def test_a_damaged_tokenizer_is_refused(toy, tmp_path, monkeypatch, capsys):
    (tmp_path / "tokenizer.json").write_text('{"model": {')
    arguments = ["--config", ZERO3, *toy.overrides, f"data.tokenizer={tmp_path}"]
    err = error_of(distill, arguments, monkeypatch, capsys)
    assert "data.tokenizer: cannot load" in err


def test_a_truncated_weights_file_is_refused(toy, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "cut"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (folder / name).write_bytes((toy.folder / "teacher" / name).read_bytes())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    assert "safetensors" in error_of(sample, ["--checkpoint", folder], monkeypatch, capsys)


def test_a_dry_run_says_everything_and_writes_nothing(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["launcher", "--config", ZERO3, "--dry-run", *toy.overrides]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        launch(distill.main)
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert "8 sequences = 2 micro-batch x 4 accumulation x 1 processes" in out
    assert re.search(r"^parameters  [\d,]+ a network: teacher, fake, student$", out, re.MULTILINE)
    assert re.search("^memory      fake ", out, re.MULTILINE)
    assert "host memory" not in out
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("student.latent.size=64", "teacher, fake, student; 1,024 more of the student's latent"),
        ("objective.name=sdtt", "teacher, student"),
    ],
)
def test_a_dry_run_says_what_a_method_trains(override, line, toy, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["x", "--config", ZERO3, "--dry-run", *toy.overrides, override]
    )
    with pytest.raises(SystemExit):
        launch(distill.main)
    assert f" a network: {line}\n" in capsys.readouterr().out


@pytest.mark.parametrize("more", [["--dry-run"], []])
def test_pretraining_looks_at_its_starting_weights_before_it_writes(
    more, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "run"
    arguments = ["--config", ZERO3, "--recipe", "pretrain_teacher", "--output", output, *more]
    err = error_of(pretrain, [*arguments, "model.init=/nowhere"], monkeypatch, capsys)
    assert "model.init: no such file or folder: /nowhere" in err
    assert not output.exists()


def test_a_dry_run_says_what_checkpoints_take(toy, monkeypatch, capsys):
    monkeypatch.setattr("idlm_ds.runs.dry_run.GB", 1.0)

    def said(*overrides: str) -> tuple[list[str], int]:
        arguments = ["x", "--config", ZERO3, "--dry-run", *toy.overrides, *overrides]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit):
            launch(distill.main)
        out = capsys.readouterr().out
        (size,) = re.findall(r"^parameters +([\d,]+)", out, re.MULTILINE)
        lines = re.findall("^(?:disk|host memory) .*$", out, re.MULTILINE)
        return [" ".join(line.split()) for line in lines], int(size.replace(",", ""))

    lines, size = said("checkpoint.asynchronous=true", "checkpoint.keep_every_hours=6")
    amount = f"{32 * size:.3f} GB"
    assert lines == [
        f"disk {amount} a checkpoint; 2 kept and one being written, beside one for every 6 hours",
        f"host memory {amount} a process while one is written beside training",
    ]
    lines, _ = said("ema.fake=false")
    assert lines == [f"disk {28 * size:.3f} GB a checkpoint; 2 kept and one being written"]
