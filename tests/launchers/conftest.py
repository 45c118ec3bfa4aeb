"""A world small enough to run the real launchers in seconds: real text, random networks."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from idlm_ds.build.locate import ASSETS
from idlm_ds.data.corpus import read_corpus
from idlm_ds.data.tokenizer import Tokenizer
from tests.toy_models import random_judge, random_teacher

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 240


@dataclass(frozen=True)
class Finished:
    """How a launcher ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Toy:
    """Files of the small world and the overrides that point a recipe at them."""

    folder: Path

    @property
    def overrides(self) -> list[str]:
        return [
            f"data.corpus={self.folder / 'corpus.jsonl'}",
            f"teacher.path={self.folder / 'teacher'}",
            f"eval.judge={self.folder / 'judge'}",
            "data.length=16",
            "data.heldout_every=2",
            "train.global_batch=8",
            "train.micro_batch=2",
            "eval.num_samples=4",
            "eval.steps=[1, 2]",
            "eval.teacher_steps=[2]",
            "eval.matched_steps=[2]",
            "log.every=1",
            "log.sample_every=0",
        ]


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Toy:
    folder = tmp_path_factory.mktemp("toy")
    documents = read_corpus(ASSETS / "sotu.jsonl.xz")[:4]
    lines = [json.dumps({"id": d.name, "text": d.text[:4000]}) for d in documents]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    tokenizer = Tokenizer(ASSETS / "tokenizer")
    random_teacher(folder / "teacher", tokenizer, dropout=0.0)
    random_teacher(folder / "dropout", tokenizer, dropout=0.1)
    random_judge(folder / "judge", tokenizer)
    return Toy(folder)


def start(
    launcher: str, arguments: list[str], *, ranks: int = 1, cwd: Path = ROOT
) -> list[subprocess.Popen]:
    """Start a launcher as ``ranks`` processes, the way a batch system does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
        "LOCAL_SIZE": str(ranks),
        "OMP_NUM_THREADS": "1",
        **hostile_build_environment(),
    }
    return [
        subprocess.Popen(
            [sys.executable, str(ROOT / "launchers" / launcher), *arguments],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]


@cache
def hostile_build_environment() -> dict[str, str]:
    """No compiler, and the lock a killed build of DeepSpeed's start-up operator leaves behind.

    A launcher that tried to build, or to use what was built, would fail or wait for ever.
    """
    folder = Path(tempfile.mkdtemp(prefix="stale-lock-"))
    for name in ("deepspeed_shm_comm", "cpu_adam", "fused_adam"):
        (folder / name).mkdir()
        (folder / name / "lock").touch()
    return {"TORCH_EXTENSIONS_DIR": str(folder), "CXX": "/bin/false", "CC": "/bin/false"}


def finish(processes: list[subprocess.Popen]) -> Finished:
    """Wait for all ranks; what the first one printed is what the user sees."""
    deadline = time.monotonic() + LIMIT_S
    try:
        outputs = [p.communicate(timeout=max(1, deadline - time.monotonic())) for p in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [p.returncode for p in processes]
    assert min(codes) >= 0, f"ended by a signal: {codes}; standard error: {[e for _, e in outputs]}"
    return Finished(max(codes), *outputs[0])


def run(launcher: str, arguments: list[str], *, ranks: int = 1, cwd: Path = ROOT) -> Finished:
    """Start and finish a launcher."""
    return finish(start(launcher, arguments, ranks=ranks, cwd=cwd))


def kill(processes: list[subprocess.Popen]) -> None:
    """SIGKILL every rank at once."""
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.communicate()
