"""Where a run's data comes from, and what is refused before it starts."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from idlm_ds.build import data
from idlm_ds.build.data import find_corpus, load_windows
from idlm_ds.build.locate import ASSETS
from idlm_ds.data import index
from idlm_ds.data.prepare import hub
from idlm_ds.data.prepare.documents import Reading
from idlm_ds.data.prepare.hub import HubSource, Preset
from idlm_ds.data.prepare.plan import PrepareOptions, make_plan
from idlm_ds.data.prepare.preparation import prepare
from idlm_ds.data.prepared import PreparedRows
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.data.windows import Windows
from idlm_ds.engine.dist import World
from idlm_ds.errors import UserError
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe
from tests.data.toy import jsonl

TOKENIZER = Tokenizer(ASSETS / "tokenizer")
LENGTH = 32


@dataclass(frozen=True)
class Ranks(World):
    """A process group as one rank sees it; ``verdict`` is what another one found."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")
    verdict: str | None = None

    def gather(self, value: object) -> list[object]:
        return [value, self.verdict]


def recipe(corpus: object, length: int = LENGTH) -> DistillRecipe:
    read = load_recipe(DistillRecipe, "quickstart")
    return replace(read, data=replace(read.data, corpus=str(corpus), length=length))


@pytest.fixture
def folder(tmp_path) -> Path:
    return made(tmp_path)


def made(tmp_path: Path, **options: object) -> Path:
    records = [{"text": f"{i}: my fellow citizens. " * 9} for i in range(60)]
    source = jsonl(tmp_path / "a.jsonl", records)
    request = PrepareOptions(source=[str(source)], length=LENGTH, **options)
    prepare(make_plan(request, TOKENIZER, lambda: None), tmp_path / "out")
    return tmp_path / "out"


def load(corpus: object, **options: object) -> tuple:
    length = options.pop("length", LENGTH)
    world = options.pop("world", Ranks())
    return load_windows(recipe(corpus, length), TOKENIZER, num_heldout=4, world=world)


def test_a_corpus_of_text_is_read_as_it_always_was():
    windows, heldout = load("assets:sotu", length=64)
    assert isinstance(windows, Windows)
    assert windows.fingerprint == "13a54bf4628ce437"
    # The first batches of the quickstart and its first held-out windows, whatever else changes.
    taken = hashlib.sha256(windows.take(range(30_000)).tobytes()).hexdigest()
    assert taken.startswith("f3f86d6d7ba6b92a")
    assert hashlib.sha256(heldout.tobytes()).hexdigest().startswith("55f734c3556f37f2")


def test_training_data_is_the_same_without_held_out_rows(folder):
    for corpus in ("assets:sotu", folder):
        with_rows, heldout = load(corpus)
        without, none = load_windows(
            recipe(corpus), TOKENIZER, num_heldout=10**9, world=Ranks(), reads_heldout=False
        )
        assert heldout.shape == (4, LENGTH)
        assert none.shape == (0, LENGTH)
        assert without.fingerprint == with_rows.fingerprint
        assert (without.take([0, 5]) == with_rows.take([0, 5])).all()


def test_prepared_data_is_told_from_text_by_its_index(folder):
    rows, heldout = load(folder)
    assert isinstance(rows, PreparedRows)
    assert rows.take([0, 1]).shape == (2, LENGTH)
    assert heldout.shape == (4, LENGTH)
    assert rows.fingerprint == load(folder)[0].fingerprint


def test_altered_shards_are_refused_by_hash_in_one_line(folder):
    path = folder / "train-00000.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 4
    path.write_bytes(content)
    message = r"^data\.corpus: .*train-00000\.bin was altered after preparation: SHA-256 [^\n]*$"
    with pytest.raises(UserError, match=message):
        load(folder)


def test_ranks_read_everything_once_and_take_the_word_of_each_other(folder, monkeypatch):
    read: list[str] = []

    def hash_file(path: Path) -> str:
        read.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(index, "hash_file", hash_file)
    files = [record.file for record in index.read_index(folder, "data.corpus").files]
    for size in (1, 2, len(files) + 1):
        read.clear()
        for rank in range(size):
            rows, _ = load(folder, world=Ranks(rank, size))
            assert isinstance(rows, PreparedRows)
        assert sorted(read) == sorted(files)
    with pytest.raises(UserError, match=r"^data\.corpus: spoilt$"):
        load(folder, world=Ranks(verdict="data.corpus: spoilt"))


def test_work_is_shared_evenly():
    sizes = {"a": 7, "b": 1, "c": 5, "d": 3, "e": 2}
    assert [Ranks(rank, 3).share(sizes) for rank in range(3)] == [["a"], ["c", "b"], ["d", "e"]]


def test_other_lengths_and_unfinished_data_are_refused(folder):
    with pytest.raises(UserError, match=r"^data\.length: 64, but .* has rows of 32$"):
        load(folder, length=64)
    (folder / "unfinished.json").touch()
    with pytest.raises(UserError, match=r"^data\.corpus: .* is unfinished; run tools/prepare_data"):
        load(folder)


def test_data_of_which_only_a_part_is_to_be_learned_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^data\.corpus: .* prepare it with --pack wrap$"):
        load(made(tmp_path, pack="pad"))


def test_a_data_set_of_the_hub_is_no_corpus_but_a_way_to_one():
    with pytest.raises(UserError, match=r"prepare_data.py --source hf:lab/set, or .* hf-stream"):
        find_corpus("hf:lab/set")
    assert find_corpus("hf-stream:lab/set") is None
    assert find_corpus("assets:sotu") == ASSETS / "sotu.jsonl.xz"
    for name in ("tinygsm", "text8"):
        with pytest.raises(UserError, match=f"^data.corpus: {name} is no stream of texts; prepare"):
            load(f"hf-stream:{name}")


def test_a_data_set_can_be_streamed_without_preparation(tmp_path, monkeypatch):
    records = [{"text": f"{i}: my fellow citizens. " * 9} for i in range(60)]
    source = jsonl(tmp_path / "a.jsonl", records)

    def opened(
        preset: Preset, split: str, revision: str | None, reading: Reading, key: str
    ) -> HubSource:
        assert (preset.name, split, revision, key) == ("lab/set", "train", "v1", "data.corpus")
        rows = datasets.load_dataset("json", data_files=str(source), split="train", streaming=True)
        return HubSource(preset, split, revision, reading, rows)

    monkeypatch.setattr(hub, "open_hub", opened)
    monkeypatch.setattr(data, "HF_HOME", str(tmp_path))
    rows, heldout = load("hf-stream:lab/set@v1")
    texts = TOKENIZER.encode([record["text"] for record in records])
    flat = [t for text in texts for t in [*text, TOKENIZER.eos_id]]
    expected = np.array(flat[: 14 * LENGTH]).reshape(14, LENGTH)
    assert (heldout == expected[:4]).all()
    assert (rows.take(range(10)) == expected[4:]).all()
