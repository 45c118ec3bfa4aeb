"""Data sets of the hub, by ones on disk that the same library reads."""

from pathlib import Path

import datasets
import pytest

from idlm_ds.data.prepare import hub
from idlm_ds.data.prepare.documents import DroppedDocument, KeptDocument, Reading
from idlm_ds.data.prepare.hub import PRESETS, Preset, open_hub, preset_of
from idlm_ds.errors import UserError
from tests.data.toy import jsonl


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """Nobody answers, and nobody is asked."""

    class Nobody:
        def dataset_info(self, name: str, *, revision: str | None) -> None:
            raise OSError("offline")

    monkeypatch.setattr(hub, "HfApi", Nobody)


def on_disk(folder: Path, **splits: list) -> Preset:
    files = {name: str(jsonl(folder / f"{name}.jsonl", rows)) for name, rows in splits.items()}
    return Preset(name="json", files=files)


def read(preset: Preset, split: str = "train", reading: Reading | None = None) -> list:
    source = open_hub(preset, split, None, reading or Reading(fields=preset.fields), "--source")
    return list(source.read(lambda _: None))


def test_rows_are_documents(tmp_path):
    rows = [{"text": "a", "id": "1"}, {"text": None, "id": "2"}, {"text": "b", "id": "1"}]
    preset = on_disk(tmp_path, train=rows, test=[{"text": "c", "id": "1"}])
    assert read(preset) == [
        KeptDocument(("a",), "1"),
        DroppedDocument("no text"),
        DroppedDocument("duplicate id"),
    ]
    assert read(preset, "test") == [KeptDocument(("c",), "1")]


def test_one_long_text_is_cut_before_blanks(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "PIECE", 10)
    text = " anarchism originated as a term of abuse first used against early working class"
    files = on_disk(tmp_path, train=[{"text": text}]).files
    pieces = read(Preset(name="json", files=files, is_one_text=True))
    texts = [piece.texts[0] for piece in pieces]
    assert "".join(texts) == text
    assert all(piece.startswith(" ") for piece in texts)
    assert all(len(piece) <= 10 + len("originated") for piece in texts)


def test_the_corpora_of_the_literature_are_known_by_name():
    assert preset_of("openwebtext").heldout_last == 100_000
    assert (preset_of("lm1b").heldout, preset_of("lm1b").detokenizer) == ("test", "lm1b")
    assert preset_of("text8").is_one_text
    assert preset_of("tinygsm").fields == ("question", "code")
    assert preset_of("lab/set:part") == Preset(name="lab/set", config="part")
    assert set(PRESETS) == {"openwebtext", "lm1b", "text8", "wikitext", "tinygsm"}


def test_what_cannot_be_opened_is_one_line(monkeypatch):
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError) as caught:
        open_hub(Preset(name="lab/set", config="part"), "train", None, Reading(), "--source")
    message = str(caught.value)
    assert message == "--source: cannot open lab/set:part, split train: first line"


def test_a_stream_that_breaks_off_says_that_it_can_go_on():
    def rows():
        yield {"text": "a"}
        raise OSError("connection reset")

    stream = datasets.IterableDataset.from_generator(rows)
    source = hub.HubSource(Preset(name="lab/set"), "train", None, Reading(), stream)
    reader = source.read(lambda _: None)
    assert next(reader) == KeptDocument(("a",))
    with pytest.raises(UserError, match=r"lab/set broke off \(connection reset\); the"):
        next(reader)


def test_the_commit_is_part_of_what_it_is(monkeypatch, tmp_path):
    class Told:
        sha = "c0ffee"

    class Somebody:
        def dataset_info(self, name: str, *, revision: str | None) -> Told:
            assert (name, revision) == ("lab/set", "main")
            return Told()

    arguments = {}

    def load(*args: object, **kwargs: object) -> datasets.IterableDataset:
        arguments.update(kwargs)
        return datasets.IterableDataset.from_generator(lambda: iter(()))

    monkeypatch.setattr(hub, "HfApi", Somebody)
    monkeypatch.setattr(datasets, "load_dataset", load)
    source = open_hub(Preset(name="lab/set"), "train", "main", Reading(), "--source")
    assert arguments["revision"] == "c0ffee"
    assert arguments["streaming"] is True
    assert source.description["revision"] == "c0ffee"
    assert "c0ffee" in source.state
