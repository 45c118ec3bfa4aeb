"""Whatever a corpus holds: counted, never a crash, never a hang, never more memory than agreed."""

import gzip
import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import idlm_ds
from idlm_ds.data.index import read_index
from idlm_ds.data.prepare.documents import DroppedDocument, KeptDocument, Reading, read_documents
from idlm_ds.data.tokenizer import Tokenizer
from tests.data.fuzz import TEXT, document, sound_files, spoilt

ROOT = Path(idlm_ds.__file__).parents[1]
LIMIT_S = 5.0
MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""A process counts the memory of the one it was forked from as its own, so this is a small one."""
SEED = 20_240_601


def prepare(output: Path, *sources: object, limit_s: float = 60) -> dict:
    """Run the tool; what the index says of the documents, and the memory it took."""
    arguments = ["--source", *sources, "--tokenizer", "assets:tokenizer", "--output", output]
    tool = [sys.executable, ROOT / "tools" / "prepare_data.py", *map(str, arguments)]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *tool, "--workers", "1", "--length", "64"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - started < limit_s
    counts = dict(read_index(output, "x").documents)
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
    return counts | {"memory": int(done.stdout.splitlines()[-1]) * 1024}


def fuzz_documents(folder: Path, count: int) -> None:
    """Read and encode documents one by one, on the clock; then prepare all of them."""
    r = random.Random(SEED)
    lines = [document(r) for _ in range(count)]
    path = folder / "fuzz.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n" + json.dumps({"text": TEXT * 100}).encode())
    tokenizer = Tokenizer(ROOT / "idlm_ds" / "assets" / "tokenizer")
    encoder = tokenizer.encoder()
    seen: Counter[str] = Counter()
    began = time.perf_counter()
    for record in read_documents(path, Reading()):
        if isinstance(record, KeptDocument):
            (ids,) = encoder.encode(record.texts)
            assert all(0 <= token < len(tokenizer) for token in ids)
            assert tokenizer.eos_id not in ids
        seen["kept" if isinstance(record, KeptDocument) else record.reason] += 1
        assert time.perf_counter() - began < LIMIT_S
        began = time.perf_counter()
    assert sum(seen.values()) == count + 1
    counts = prepare(folder / "out", path, limit_s=60 + count / 50)
    assert counts["read"] == count + 1
    assert counts["kept"] == seen.pop("kept")
    assert counts["dropped"] == dict(seen)
    assert counts["memory"] < 1 << 30


def damage_files(folder: Path, count: int) -> None:
    (folder / "sound").mkdir()
    files = sound_files(folder / "sound", 300)
    for seed in range(count):
        r = random.Random(SEED + seed)
        source = files[seed % len(files)]
        path = folder / source.name
        path.write_bytes(spoilt(source.read_bytes(), r))
        began = time.perf_counter()
        for record in read_documents(path, Reading()):
            assert isinstance(record, KeptDocument | DroppedDocument)
        assert time.perf_counter() - began < LIMIT_S


def test_fuzzed_documents_are_kept_or_counted(tmp_path):
    fuzz_documents(tmp_path, 600)


def test_damaged_files_give_what_they_have(tmp_path):
    damage_files(tmp_path, 18)


@pytest.mark.slow
def test_ten_thousand_fuzzed_documents_are_kept_or_counted(tmp_path):
    fuzz_documents(tmp_path, 10_000)


@pytest.mark.slow
def test_hundreds_of_damaged_files_give_what_they_have(tmp_path):
    damage_files(tmp_path, 450)


def test_every_kind_of_hostile_document_has_its_reason(tmp_path):
    good = json.dumps({"text": TEXT}).encode()
    lines = [
        good,
        b"",
        b'{"text": "a\\u0000"}',
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b'\xef\xbb\xbf{"text": "' + TEXT.strip().encode() + b'"}',
        b'{"text": "\\ufeff' + TEXT.strip().encode() + b'"}',
        b'{"text": "' + b"x" * (50 << 20) + b'"}',
        b'{"text": 5}',
        b'{"id": 1, "text": "once"}',
        b'{"id": 1, "text": "twice"}',
        b'{"text": "a' + b"\\u0301" * 500_000 + b'"}',
        b'{"text": "cut of',
    ]
    (tmp_path / "hostile.jsonl").write_bytes(b"\n".join([*lines, good * 0]))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress((good + b"\n") * 5000)[:-20])
    counts = prepare(tmp_path / "out", tmp_path / "cut.jsonl.gz", tmp_path / "hostile.jsonl")
    assert counts["dropped"] == {
        "NUL": 1,
        "cut short": 1,
        "duplicate id": 1,
        "empty": 1,
        "lone surrogate": 1,
        "not JSON": 1,
        "not UTF-8": 1,
        "too long": 1,
        "wrong type": 1,
    }
    assert counts["repaired"] == 1
    assert counts["memory"] < 1 << 30
    assert read_index(tmp_path / "out", "x").damaged == {
        str(tmp_path / "cut.jsonl.gz"): "cut short"
    }


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Thirty times the documents, the same memory but for what a shard holds."""
    line = json.dumps({"text": TEXT * 4}) + "\n"
    taken = []
    for name, count in (("small", 200), ("large", 6_000)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(line * count)
        taken.append(prepare(tmp_path / name, path)["memory"])
    assert taken[1] - taken[0] < 300 << 20
