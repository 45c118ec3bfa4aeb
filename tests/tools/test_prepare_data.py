"""The program itself: what it says, how it ends, and that it survives being killed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import idlm_ds
from idlm_ds.cli import launch
from idlm_ds.data.corpus import read_corpus
from tests.data.toy import contents, jsonl

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
import prepare_data

ROOT = Path(idlm_ds.__file__).parents[1]

TEXT = "My fellow citizens, the state of the union is strong. "


@pytest.fixture
def source(tmp_path) -> Path:
    records = [{"id": i, "text": f"{1790 + i} {TEXT * (1 + i % 5)}"} for i in range(60)]
    return jsonl(tmp_path / "a.jsonl", [*records, {"id": 3, "text": "again"}, {"text": ""}])


def run(arguments: list[object], monkeypatch, tool=prepare_data) -> int:
    monkeypatch.setattr(sys, "argv", ["prepare_data.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        launch(tool.main)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def arguments_for(source: object, output: Path, *more: object) -> list[object]:
    defaults = ["--tokenizer", "assets:tokenizer", "--length", 32, "--workers", 1]
    return ["--source", source, "--output", output, *defaults, *more]


def test_one_command_prepares_a_corpus_and_says_what_became_of_it(
    source, tmp_path, monkeypatch, capsys
):
    assert run(arguments_for(source, tmp_path / "out"), monkeypatch) == 0
    printed = capsys.readouterr().out.splitlines()
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert printed[0].startswith(f"{tmp_path / 'out'}: ")
    assert printed[0].split(" rows of 32 tokens, fingerprint ")[1]
    assert printed[1:] == [
        "documents: 62 read, 60 kept, 0 repaired",
        "  dropped             1  duplicate id",
        "  dropped             1  empty",
    ]
    assert index["documents"]["heldout"] == 3


def test_prompts_and_answers_are_padded_without_being_asked(tmp_path, monkeypatch):
    records = [{"q": TEXT, "a": "It is strong."}] * 25
    source = jsonl(tmp_path / "a.jsonl", records)
    fields = ["--prompt-field", "q", "--answer-field", "a", "--heldout-last", 5]
    assert run(arguments_for(source, tmp_path / "out", *fields), monkeypatch) == 0
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["pack"] == "pad"
    assert index["splits"]["train"][0]["spans"]["bytes"] == 20 * 8
    assert (index["documents"]["train"], index["documents"]["heldout"]) == (20, 5)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--pack", "fold"], "invalid choice: 'fold'"),
        (["--length", "2"], "--length: must be at least 3 here, got 2"),
        (["--workers", "0"], "--workers: must be above 0, got 0"),
        (["--shard-mb", "-1"], "--shard-mb: must be above 0"),
        (["--heldout-every", "1"], "--heldout-every: must be at least 2, got 1"),
        (["--heldout-last", "62"], "--heldout-last: must be between 1 and 61, got 62"),
        (["--heldout-last", "2", "--heldout-every", "2"], "cannot be had together"),
        (["--prompt-field", "q"], "--prompt-field: goes together with --answer-field"),
        (["--text-field", "x", "--prompt-field", "q", "--answer-field", "a"], "--text-field: cann"),
        (["--text-field", "body"], "--source: not one row of 32 tokens came of 62 documents"),
        (["--source", "lm1b", "wikitext"], "--source: lm1b cannot be mixed with others"),
        (["--source", "/nowhere"], "--source: no such file or folder: /nowhere"),
        (["--tokenizer", "/nowhere"], "--tokenizer: no such file or folder: /nowhere"),
        (["--output", __file__], "is no folder"),
        (["--output", str(ROOT / "tools")], "holds other files"),
        (["--prompt-field", "q", "--answer-field", "a", "--pack", "wrap"], "one pair a row"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    source, tmp_path, monkeypatch, capsys, more, complaint
):
    assert run([*arguments_for(source, tmp_path / "out"), *more], monkeypatch) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert complaint in errors[0]


def start(arguments: list[object]) -> subprocess.Popen:
    tool = ROOT / "tools" / "prepare_data.py"
    return subprocess.Popen(
        [sys.executable, str(tool), *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture
def speeches(tmp_path) -> Path:
    documents = read_corpus(ROOT / "idlm_ds" / "assets" / "sotu.jsonl.xz")[:110]
    return jsonl(tmp_path / "a.jsonl", [{"text": d.text} for d in documents])


def kill_at(shard: Path, process: subprocess.Popen) -> list[str]:
    """Kill a preparation as soon as it has written a shard; its workers."""
    while process.poll() is None and not shard.exists():
        time.sleep(0.005)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    assert process.wait() == -signal.SIGKILL
    return children


def test_killed_and_run_again_the_bytes_are_the_same(speeches, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(arguments_for(speeches, whole, "--shard-mb", 0.1), monkeypatch) == 0
    process = start([*arguments_for(speeches, cut, "--shard-mb", 0.1), "--workers", 2])
    workers = kill_at(cut / "train-00001.bin", process)
    assert not (cut / "index.json").exists()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(Path(f"/proc/{w}").exists() for w in workers):
        time.sleep(0.05)
    assert not [w for w in workers if Path(f"/proc/{w}").exists()]
    assert run(arguments_for(speeches, cut, "--shard-mb", 0.1), monkeypatch) == 0
    left = contents(cut).keys() - contents(whole).keys()
    assert all(name.endswith(".tmp") for name in left)
    assert contents(whole).items() <= contents(cut).items()
