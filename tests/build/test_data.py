"""Where a run's data comes from, and what is refused before it starts."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import pytest

from idlm_ds.build import data
from idlm_ds.build.data import find_corpus, load_windows
from idlm_ds.build.locate import ASSETS
from idlm_ds.data.prepare import hub
from idlm_ds.data.prepare.documents import Reading
from idlm_ds.data.prepare.hub import HubSource, Preset
from idlm_ds.data.prepare.plan import PrepareOptions, make_plan
from idlm_ds.data.prepare.preparation import prepare
from idlm_ds.data.prepared import PreparedRows
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.data.windows import Windows
from idlm_ds.errors import UserError
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe
from tests.data.toy import jsonl

TOKENIZER = Tokenizer(ASSETS / "tokenizer")
LENGTH = 32


@dataclass(frozen=True)
class Ranks:
    """A process group as one rank sees it; the first one's word is ``verdict``."""

    is_first: bool = True
    size: int = 1
    verdict: str | None = None

    def agree(self, value: object) -> object:
        return value if self.is_first else self.verdict


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


def test_the_first_rank_reads_everything_and_the_others_take_its_word(folder, monkeypatch):
    def never(*args: object) -> None:
        raise AssertionError("another rank hashed the data")

    monkeypatch.setattr(data, "check_hashes", never)
    rows, _ = load(folder, world=Ranks(is_first=False))
    assert isinstance(rows, PreparedRows)
    with pytest.raises(UserError, match=r"^data\.corpus: spoilt$"):
        load(folder, world=Ranks(is_first=False, verdict="data.corpus: spoilt"))


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
