import json
from pathlib import Path

import datasets
import numpy as np
import pytest

from idlm_ds.data import stream
from idlm_ds.data.stream import StreamRows
from idlm_ds.errors import UserError
from tests.data.letters import EOS, LETTERS, LetterEncoder, LetterTokenizer
from tests.data.toy import jsonl

LENGTH = 5
TEXTS = [LETTERS[i % 20 : i % 20 + 1 + i % 7] for i in range(200)]


@pytest.fixture
def source(tmp_path) -> Path:
    records = [{"text": text} for text in TEXTS]
    records.insert(3, {"text": ""})
    return jsonl(tmp_path / "a.jsonl", records)


def opened(source: Path, *, heldout: int = 0, bookmarks: str = "bookmarks") -> StreamRows:
    documents = datasets.load_dataset("json", data_files=str(source), split="train", streaming=True)
    return StreamRows(
        documents,
        LetterTokenizer(),
        length=LENGTH,
        name="toy",
        heldout=heldout,
        bookmarks=source.parent / bookmarks,
    )


def expected(count: int) -> list[list[int]]:
    """The documents over and over, end to end."""
    epoch = [t for text in TEXTS for t in [*(LETTERS.index(c) + 3 for c in text), EOS]]
    tokens = epoch * (1 + count * LENGTH // len(epoch))
    return np.array(tokens[: count * LENGTH]).reshape(count, LENGTH).tolist()


def test_rows_are_the_documents_end_to_end_over_and_over(source):
    rows = opened(source)
    got = [
        row for start in range(0, 600, 20) for row in rows.take(range(start, start + 20)).tolist()
    ]
    assert got == expected(600)


def test_ranks_that_skip_each_others_rows_see_the_same_stream(source):
    rows = opened(source)
    got = [rows.take(range(start, start + 4)).tolist() for start in range(4, 400, 8)]
    assert got == [expected(400)[start : start + 4] for start in range(4, 400, 8)]


def test_going_back_is_reading_again(source):
    rows = opened(source)
    late = rows.take(range(500, 510)).tolist()
    assert rows.take(range(3, 6)).tolist() == expected(6)[3:]
    assert rows.take(range(500, 510)).tolist() == late == expected(510)[500:]


def test_the_first_rows_are_held_out(source):
    rows = opened(source, heldout=7)
    assert rows.heldout.tolist() == expected(7)
    assert rows.take(range(10)).tolist() == expected(17)[7:]
    assert rows.fingerprint != opened(source).fingerprint
    assert opened(source).heldout.shape == (0, LENGTH)


def test_a_run_that_goes_on_starts_at_the_place_left_behind(source, monkeypatch):
    monkeypatch.setattr(stream, "ROWS_PER_BOOKMARK", 50)
    monkeypatch.setattr(stream, "DOCUMENTS_AT_ONCE", 8)
    opened(source).take(range(700, 705))
    (file,) = (source.parent / "bookmarks").iterdir()
    bookmarks = json.loads(file.read_text())
    assert len(bookmarks) > 5
    seen: list[str] = []
    encode = LetterEncoder.encode

    def counted(self: LetterEncoder, texts: list[str]) -> list[list[int]]:
        seen.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(LetterEncoder, "encode", counted)
    assert opened(source).take(range(690, 700)).tolist() == expected(700)[690:]
    assert len(set(seen)) < 120


def test_damaged_places_cost_time_and_nothing_else(source, monkeypatch):
    monkeypatch.setattr(stream, "ROWS_PER_BOOKMARK", 50)
    opened(source).take(range(300, 305))
    (file,) = (source.parent / "bookmarks").iterdir()
    for content in ("", "[]", "{"):
        file.write_text(content)
        assert opened(source).take(range(300, 305)).tolist() == expected(305)[300:]


def test_a_data_set_without_text_is_refused(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", [{"body": "a"}] * 3)
    with pytest.raises(UserError, match=r"^data\.corpus: the data set has no document"):
        opened(source).take(range(1))


def test_a_stream_that_breaks_off_is_one_line(tmp_path):
    def rows():
        yield {"text": "abc"}
        raise OSError("connection reset")

    broken = StreamRows(
        datasets.IterableDataset.from_generator(rows),
        LetterTokenizer(),
        length=LENGTH,
        name="toy",
        heldout=0,
        bookmarks=tmp_path,
    )
    with pytest.raises(UserError, match=r"^data\.corpus: the stream broke off: connection reset$"):
        broken.take(range(1))


def test_only_words_of_the_tokenizer_can_occur(source):
    rows = opened(source)
    assert rows.scored([0]) is None
    assert rows.holds(5)
    assert not rows.holds(40)
