"""One screen about a conversion, or one line about why there is none."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import idlm_ds
from idlm_ds.checkpoints import conversion
from idlm_ds.checkpoints.formats.public import read_public
from idlm_ds.cli import launch
from idlm_ds.registry.families import FAMILIES
from idlm_ds.registry.layouts import LAYOUTS
from tests.checkpoints.gadgets import SLOT, live, splice
from tests.checkpoints.models_on_disk import (
    write_lightning_without_configuration,
    write_sedd_training,
)
from tests.checkpoints.published import LENGTH, dit_table

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
import convert_checkpoint

ROOT = Path(idlm_ds.__file__).parents[1]
TEACHER = ROOT / "idlm_ds" / "assets" / "teacher"
PARAMETERS = sum(map(math.prod, dit_table().values()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_sedd_training(tmp_path / "model")[0]


def run(arguments: list[object], monkeypatch) -> int:
    monkeypatch.setattr(sys, "argv", ["convert_checkpoint.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        launch(convert_checkpoint.main)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_one_screen_says_what_there_is_now(path: Path, tmp_path: Path, monkeypatch, capsys):
    target = tmp_path / "there.ckpt"
    assert run([path, target, "--to", "lightning", "--length", LENGTH], monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    logit = lines.pop(4)
    assert lines == [
        f"{path}: checkpoint of SEDD's training program",
        f"{target}: Lightning checkpoint of MDLM, Duo or SEDD",
        f"  parameters  {PARAMETERS:,}, stored as float32",
        "  compared    weights and running mean: every tensor bit for bit",
        "  not held    state of the training",
        "  tokenizer   none copied",
    ]
    assert logit.startswith("  logits      of 32 tokens: largest difference 0 (largest logit ")


def test_a_cast_states_the_largest_difference(tmp_path: Path, monkeypatch, capsys):
    target = tmp_path / "there"
    arguments = [TEACHER, target, "--to", "sdtt", "--dtype", "bfloat16"]
    assert run([*arguments, "--max-shard-size", "1MB"], monkeypatch) == 0
    out = capsys.readouterr().out
    assert "stored as bfloat16\n" in out
    assert "weights: every tensor bit for bit, after the cast to bfloat16\n" in out
    assert "largest difference 0." in out
    assert "tokenizer.json, tokenizer_config.json" in out
    assert len(list(target.glob("*.safetensors"))) > 3


def test_what_the_source_does_not_tell_is_given(tmp_path: Path, monkeypatch, capsys):
    source, _ = write_lightning_without_configuration(tmp_path / "model")
    target = tmp_path / "there"
    given = ["--family", "duo", "--length", "9", "--time-conditioning", "no"]
    assert run([source, target, "--to", "idlm_ds", *given], monkeypatch) == 0
    about = read_public(target).about
    assert (about.family, about.length) == ("duo", 9)
    assert about.sizes["time_conditioning"] is False
    assert "tokenizer   none copied" in capsys.readouterr().out


def test_raw_weights_and_a_fresh_start_can_be_asked_for(path, tmp_path, monkeypatch, capsys):
    arguments = [path, tmp_path / "there", "--to", "sedd"]
    assert run(arguments, monkeypatch) == 0
    assert "not held    weights other than the running mean" in capsys.readouterr().out
    assert run(arguments, monkeypatch) == 2
    assert run([*arguments, "--raw", "--fresh"], monkeypatch) == 0
    assert "not held    running mean" in capsys.readouterr().out


def test_a_usual_mistake_is_one_line_and_exit_code_2(path, tmp_path, monkeypatch, capsys):
    target = tmp_path / "there"
    for arguments in (
        [path],
        [path, target],
        [path, target, "--to", "gguf"],
        [path, target, "--to", "idlm_ds"],
        [path, target, "--to", "llada"],
        [path, target, "--to", "sdtt", "--length", "many"],
        [path, target, "--to", "sdtt", "--max-shard-size", "5"],
        ["/nowhere", target, "--to", "sdtt"],
    ):
        assert run(arguments, monkeypatch) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_check_that_fails_removes_the_target(path, tmp_path, monkeypatch, capsys):
    seen = iter([torch.zeros(2), torch.ones(2)])
    monkeypatch.setattr(conversion, "answers", lambda *_: next(seen))
    target = tmp_path / "there"
    assert run([path, target, "--to", "sedd"], monkeypatch) == 2
    assert capsys.readouterr().err == (
        f"error: {target}: not what {path} holds, so removed: its logits differ by 1 from those of "
        f"{path}\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_file_that_would_run_code_is_one_line_and_exit_code_4(tmp_path: Path):
    path, canary = tmp_path / "evil.ckpt", tmp_path / "canary"
    torch.save({"state_dict": {}, "hyper_parameters": {"x": SLOT}}, path)
    path.write_bytes(splice(path.read_bytes(), live(canary)["os.system"]))
    tool = ROOT / "tools" / "convert_checkpoint.py"
    command = [sys.executable, str(tool), str(path), str(tmp_path / "there"), "--to", "sedd"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_choices_are_those_of_the_package():
    choices = {a.dest: a.choices for a in convert_checkpoint.make_parser()._actions}
    assert choices["to"] == tuple(LAYOUTS)
    assert choices["family"] == tuple(FAMILIES)
