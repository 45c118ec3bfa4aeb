"""One screen about a checkpoint, or one line about what is wrong with it."""

import hashlib
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import idlm_ds
from idlm_ds.cli import launch
from tests.checkpoints.gadgets import SLOT, live, splice
from tests.checkpoints.published import LightningFile, dit_table, training_config

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
import inspect_checkpoint

ROOT = Path(idlm_ds.__file__).parents[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    config = training_config(algo={"name": "mdlm", "time_conditioning": False})
    return LightningFile(config=config).write(tmp_path / "last.ckpt")


def run(arguments: list[object], monkeypatch) -> int:
    monkeypatch.setattr(sys, "argv", ["inspect_checkpoint.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        launch(inspect_checkpoint.main)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_one_screen_says_what_there_is(path: Path, monkeypatch, capsys):
    assert run([path], monkeypatch) == 0
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: Lightning checkpoint of MDLM, Duo or SEDD",
        "  family      mdlm",
        "  network     dit: hidden 24, cond 8, blocks 2, heads 3, dropout 0.1, mlp_ratio 4, "
        "time_conditioning False",
        f"  parameters  {sum(map(math.prod, dit_table().values())):,}, stored as float32",
        "  vocabulary  11",
        "  mask id     10",
        "  length      16",
        "  weights     running mean (decay 0.9999, updates 7); --raw for the others",
        "  stripped    backbone.",
        "  not read    teacher.vocab_embed.embedding, backbone.rotary_emb.inv_freq",
        f"  file        last.ckpt (sha256 {digest}, {path.stat().st_size:,} bytes)",
    ]


def test_raw_weights_and_no_hashes_can_be_asked_for(path: Path, monkeypatch, capsys):
    assert run([path, "--raw", "--no-hashes"], monkeypatch) == 0
    out = capsys.readouterr().out
    assert "raw; there is also a running mean" in out
    assert "sha256" not in out


def test_the_embedded_teacher_is_described(monkeypatch, capsys):
    assert run([ROOT / "idlm_ds" / "assets" / "teacher"], monkeypatch) == 0
    assert "model folder of this package" in capsys.readouterr().out


def test_a_usual_mistake_is_one_line_and_exit_code_2(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "empty.ckpt").touch()
    for arguments in ([], ["/nowhere"], [tmp_path / "empty.ckpt"], [tmp_path]):
        assert run(arguments, monkeypatch) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert err.count("\n") == 1


def test_a_file_that_would_run_code_is_one_line_and_exit_code_4(tmp_path: Path):
    path, canary = tmp_path / "evil.ckpt", tmp_path / "canary"
    torch.save({"state_dict": {}, "hyper_parameters": {"x": SLOT}}, path)
    path.write_bytes(splice(path.read_bytes(), live(canary)["os.system"]))
    tool = ROOT / "tools" / "inspect_checkpoint.py"
    done = subprocess.run([sys.executable, str(tool), str(path)], capture_output=True, text=True)
    assert done.returncode == 4
    assert done.stdout == ""
    assert done.stderr == (
        f"error: {path}: refused, nothing in it was executed: its pickle names os.system\n"
    )
    assert not canary.exists()
