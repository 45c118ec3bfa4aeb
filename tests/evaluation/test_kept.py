"""What a report keeps: used where it fits, and never where it does not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from idlm_ds.engine.dist import World
from idlm_ds.evaluation.cell import Cell
from idlm_ds.evaluation.draw import SampleSet
from idlm_ds.evaluation.kept import KeptSets
from idlm_ds.evaluation.score import Scores
from tests.distributed.harness import run_ranks
from tests.evaluation.test_genppl import ALONE

CELL = Cell(
    model="student",
    source="0123456789abcdef",
    family="mdlm",
    sampler="ancestral",
    steps=4,
    precision="float64",
    temperature=0.85,
    nucleus=1.0,
    seed=7,
    num_samples=2,
    length=3,
    tokenizer="fedcba9876543210",
)
ABOUT = {"process": {"name": "mdlm", "eps": 1e-3}, "precision": "bf16", "machine": {"torch": "2"}}
JUDGE = ["judge@0123456789ab", 64, False, "its tokenizer"]
SET = SampleSet(
    tokens=torch.tensor([[1, 2, 3], [4, 5, 6]]),
    texts=["a b c", "d — \U0001f600 f"],
    nfe=3.5,
    seconds=1.2345678901234567,
    machine={"device": "cpu", "ranks": 1},
)
SCORES = Scores(torch.tensor([1.1, 2.2 / 3], dtype=torch.float64), torch.tensor([2, 2]))


class Worker:
    """Draws and scores, and counts how often."""

    def __init__(self, kept: KeptSets) -> None:
        self.kept, self.drawn, self.scored = kept, 0, 0

    def samples(self, cell: Cell = CELL, stream: str = "student/4") -> SampleSet:
        def draw() -> SampleSet:
            self.drawn += 1
            return SET

        return self.kept.samples(cell, stream, draw)

    def scores(self, texts: list[str] = SET.texts, judge: list[Any] = JUDGE) -> Scores:
        def score() -> Scores:
            self.scored += 1
            return SCORES

        return self.kept.scores(CELL, texts, judge, score)


@pytest.fixture
def work(tmp_path) -> Callable[..., Worker]:
    """Make a worker that comes after all others that were made."""
    return lambda **about: Worker(KeptSets(tmp_path / "evaluation", {**ABOUT, **about}, ALONE))


def files(tmp_path: Path) -> list[Path]:
    return sorted(path for path in tmp_path.rglob("*") if path.is_file())


def test_a_kept_set_is_the_set_bit_for_bit_and_is_not_drawn_again(work):
    first, later = work(), work()
    assert first.samples() is SET
    assert first.scores() is SCORES
    samples, scores = later.samples(), later.scores()
    assert samples.tokens.equal(SET.tokens)
    assert samples.tokens.dtype == SET.tokens.dtype
    assert [samples.texts, samples.nfe, samples.seconds, samples.machine] == [
        *[SET.texts, SET.nfe, SET.seconds, SET.machine]
    ]
    assert scores.nats.equal(SCORES.nats)
    assert scores.tokens.equal(SCORES.tokens)
    assert (later.drawn, later.scored) == (0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "teacher (matched)"},
        {"source": "another student"},
        {"family": "sedd"},
        {"sampler": "blockwise, block 2, random"},
        {"steps": 8},
        {"precision": "float32"},
        {"temperature": 0.85000000001},
        {"nucleus": 0.9},
        {"latent": 8},
        {"seed": 8},
        {"num_samples": 3},
        {"length": 4},
        {"tokenizer": "another"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_set_of_other_settings_is_another_set(change, work):
    work().samples()
    other = work()
    other.samples(replace(CELL, **change))
    assert other.drawn == 1
    other.samples()
    assert other.drawn == 1


@pytest.mark.parametrize(
    "about",
    [
        {"process": {"name": "mdlm", "eps": 2e-3}},
        {"precision": "fp32"},
        {"machine": {"torch": "2", "commit": "x"}},
    ],
)
def test_a_run_of_other_settings_keeps_nothing_for_this_one(about, work):
    work().samples()
    work().scores()
    other = work(**about)
    other.samples()
    other.scores()
    assert (other.drawn, other.scored) == (1, 1)


def test_other_random_numbers_other_texts_and_other_judges_are_not_mixed_up(work):
    work().samples()
    work().scores()
    other = work()
    other.samples(stream="teacher_matched/4")
    other.scores(texts=[*SET.texts[:1], "another"])
    other.scores(judge=["judge@ba9876543210", *JUDGE[1:]])
    other.scores(judge=[*JUDGE[:3], "another tokenizer"])
    assert (other.drawn, other.scored) == (1, 3)


def altered(content: dict[str, Any], *keys: str, value: Any) -> dict[str, Any]:
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return content


DAMAGE: dict[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "no object": lambda text: f"[{text}]",
    "no UTF-8": lambda text: "\udcff" + text,
    "deep": lambda text: "[" * 100_000,
    "another format": lambda text: json.dumps(altered(json.loads(text), "format", value=2)),
    "no content": lambda text: json.dumps(altered(json.loads(text), "content", value=None)),
    "other content": lambda text: json.dumps(
        altered(json.loads(text), "content", "tokens", value=[[1, 2, 3], [4, 5, 7]])
    ),
    "another hash": lambda text: json.dumps(altered(json.loads(text), "sha256", value="0")),
    "other settings": lambda text: json.dumps(altered(json.loads(text), "of", value={})),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_noticed_said_and_replaced(damage, work, tmp_path, capsys):
    work().samples()
    work().scores()
    kept = {path: path.read_bytes() for path in files(tmp_path)}
    assert len(kept) == 2
    for path, content in kept.items():
        path.write_bytes(damage(content.decode()).encode("utf-8", "surrogateescape"))
    capsys.readouterr()
    again, later = work(), work()
    assert again.samples().tokens.equal(SET.tokens)
    assert again.scores().nats.equal(SCORES.nats)
    assert (again.drawn, again.scored) == (1, 1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("is computed again: " in line for line in lines)
    assert {path: path.read_bytes() for path in files(tmp_path)} == kept
    later.samples()
    later.scores()
    assert (later.drawn, later.scored) == (0, 0)


def test_a_file_under_the_name_of_another_is_not_taken_for_it(work, tmp_path, capsys):
    work().samples()
    (path,) = files(tmp_path)
    work().samples(replace(CELL, seed=8))
    (other,) = set(files(tmp_path)) - {path}
    shutil.copy(other, path)
    again = work()
    again.samples()
    assert again.drawn == 1
    assert "it belongs to other settings" in capsys.readouterr().out


def test_a_report_goes_on_where_nothing_can_be_kept(work, tmp_path, capsys):
    (tmp_path / "evaluation").write_text("no folder")
    worker = work()
    assert worker.samples() is SET
    assert worker.scores() is SCORES
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("not kept, and the report goes on" in line for line in lines)


def _on_a_rank(world: World, folder: Path) -> tuple[int, list[list[int]], list[float]]:
    """On the second rank the folder is another one, as on a disk of its own."""
    worker = Worker(KeptSets(folder / str(world.rank), ABOUT, world))
    samples, scores = worker.samples(), worker.scores()
    return worker.drawn + worker.scored, samples.tokens.tolist(), scores.nats.tolist()


@pytest.mark.dist
def test_all_ranks_use_what_the_first_one_finds(tmp_path):
    for count in (2, 0):
        found = run_ranks(_on_a_rank, 2, tmp_path)
        assert found == [(count, SET.tokens.tolist(), SCORES.nats.tolist())] * 2
    assert not (tmp_path / "1").exists()
