"""One screen about prepared data, or one line about what is wrong with it."""

import shutil
import sys
from pathlib import Path

import pytest

import idlm_ds
from idlm_ds.data.prepare.plan import PreparationPlan, PrepareOptions, make_plan
from idlm_ds.data.prepare.preparation import prepare
from idlm_ds.data.tokenizer import Tokenizer
from tests.data.toy import jsonl

from .test_prepare_data import run

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
import inspect_data

ROOT = Path(idlm_ds.__file__).parents[1]

TEXT = "My fellow citizens. "


def plan(folder: Path, **options: object) -> PreparationPlan:
    records = [{"text": f"{i} {TEXT * (i % 9 + 1)}"} for i in range(99)]
    source = jsonl(folder / "a.jsonl", [*records, {"text": "\0"}])
    request = PrepareOptions(source=[str(source)], length=32, **options)
    return make_plan(request, Tokenizer(ROOT / "idlm_ds" / "assets" / "tokenizer"), lambda: None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare(plan(folder), folder / "out")
    return folder / "out"


@pytest.fixture
def folder(prepared, tmp_path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "copy"))


def test_one_screen_says_what_there_is(folder, monkeypatch, capsys):
    assert run([folder, "--verify", "--samples", 1], monkeypatch, inspect_data) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{folder}: ")
    fields = dict(line.strip().split(maxsplit=1) for line in out[1:9])
    assert fields["packing"] == "wrap, framed, documents end with eos"
    assert fields["source"] == "1 files: a.jsonl"
    assert fields["documents"] == "100 read = 99 kept + 1 dropped"
    assert fields["dropped"] == "1 NUL"
    assert fields["files"] == "3, sizes and SHA-256 as in the index"
    # A document has 5 to 6 tokens a sentence, one to nine times, and its end.
    bars = [line.split() for line in out if line.endswith("#")]
    assert [bar[0] for bar in bars] == ["8", "16", "32"]
    assert sum(int(bar[3]) for bar in bars) == 93
    assert out[-1].startswith("  row 0: '<|endoftext|>0 My fellow citizens. <|endoftext|>1 My")


def test_padded_rows_are_measured_by_their_spans(tmp_path, monkeypatch, capsys):
    prepare(plan(tmp_path, pack="pad"), tmp_path / "out")
    assert run([tmp_path / "out", "--samples", 0], monkeypatch, inspect_data) == 0
    out = capsys.readouterr().out
    assert "cut at a row's end" in out
    assert "sizes as in the index" in out
    assert "row 0" not in out


@pytest.mark.parametrize("name", ["train-00000.bin", "heldout-00000.bin", "token-counts.bin"])
def test_an_altered_file_is_one_line(folder, monkeypatch, capsys, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert run([folder, "--verify"], monkeypatch, inspect_data) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert f"{folder / name} was altered after preparation: SHA-256" in errors[0]


def test_another_tokenizer_in_the_folder_is_named_with_both_hashes(folder, monkeypatch, capsys):
    from tests.data.test_tokenizer import save_tokenizer

    shutil.rmtree(folder / "tokenizer")
    save_tokenizer(folder / "tokenizer", eos_token="<eos>", unk_token="<unk>")
    assert run([folder], monkeypatch, inspect_data) == 2
    assert "is tokenizer" in (stderr := capsys.readouterr().err)
    assert Tokenizer(folder / "tokenizer").fingerprint[:12] in stderr


@pytest.mark.parametrize("path", ["/nowhere", str(ROOT)])
def test_what_is_no_prepared_data_is_one_line(path, monkeypatch, capsys):
    assert run([path], monkeypatch, inspect_data) == 2
    assert "is no index of prepared data" in capsys.readouterr().err
