"""Every kind of document that is dropped, under the reason it is counted by."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idlm_ds.data.prepare.documents import (
    DroppedDocument,
    DuplicateFilter,
    KeptDocument,
    Reading,
    expand,
    read_documents,
)
from idlm_ds.errors import UserError

HOW = Reading(longest=1000)
QUESTIONS = Reading(fields=("question", "answer"))


def read(path: Path, reading: Reading = HOW) -> list:
    return list(read_documents(path, reading))


def read_line(tmp_path: Path, line: bytes, reading: Reading = HOW) -> object:
    path = tmp_path / "one.jsonl"
    path.write_bytes(line)
    (record,) = read(path, reading)
    return record


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\n", "empty"),
        (b'{"text": ""}', "empty"),
        (b'{"text": " \\n\\t\\u2003"}', "empty"),
        (b'{"text": "\\ufeff"}', "empty"),
        (b'{"text": "a\\u0000b"}', "NUL"),
        (b'{"text": "a\x00b"}', "not JSON"),
        (b'{"text": "\xff\xfe"}', "not UTF-8"),
        (b'{"text": "\\ud800"}', "lone surrogate"),
        (b'{"text": "tail \\udfff"}', "lone surrogate"),
        (b'{"text": "half', "not JSON"),
        (b"[" * 900, "not JSON"),
        (b"9" * 900, "wrong type"),
        (b'{"text": ' + b"9" * 900 + b"}", "wrong type"),
        (b'"text"', "wrong type"),
        (b"null", "wrong type"),
        (b'{"text": ["a"]}', "wrong type"),
        (b'{"text": null}', "no text"),
        (b'{"body": "a"}', "no text"),
        (b'{"text": "' + b"x" * 1000 + b'"}', "too long"),
        (b'{"text": "' + rb"\u00e9" * 150 + b'"}', None),
    ],
)
def test_a_line_that_is_no_document_is_dropped_under_its_reason(tmp_path, line, reason):
    record = read_line(tmp_path, line)
    assert record == (DroppedDocument(reason) if reason else KeptDocument(("é" * 150,)))


def test_nesting_deeper_than_the_parser_goes_is_no_json(tmp_path):
    record = read_line(tmp_path, b"[" * 200_000, Reading(longest=10**6))
    assert record == DroppedDocument("not JSON")


def test_a_number_beyond_the_parser_is_no_json(tmp_path):
    assert read_line(tmp_path, b"9" * 10_000, Reading(longest=10**6)) == DroppedDocument("not JSON")


def test_length_is_counted_in_bytes(tmp_path):
    line = json.dumps({"text": "é" * 30}, ensure_ascii=False).encode()
    assert read_line(tmp_path, line, Reading(longest=80)) == KeptDocument(("é" * 30,))
    line = json.dumps({"text": "é" * 30}).encode()
    assert read_line(tmp_path, line, Reading(longest=59)) == DroppedDocument("too long")


def test_surrogates_in_a_pair_are_a_letter(tmp_path):
    assert read_line(tmp_path, rb'{"text": "\ud83c\udf88"}') == KeptDocument(("🎈",))


@pytest.mark.parametrize("line", [b'\xef\xbb\xbf{"text": "a"}', b'{"text": "a"}\r\n'])
def test_marks_around_a_record_do_no_harm(tmp_path, line):
    assert read_line(tmp_path, line) == KeptDocument(("a",))


def test_a_byte_order_mark_is_taken_from_a_text_and_told(tmp_path):
    assert read_line(tmp_path, rb'{"text": "\ufeffa\ufeff"}') == KeptDocument(
        ("a\ufeff",), None, True
    )
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfhello")
    assert read(path) == [KeptDocument(("hello",), None, True)]


def test_the_second_document_with_a_name_is_dropped_in_its_file_only(tmp_path):
    records = [{"id": 1, "text": "a"}, {"id": "1", "text": "b"}, {"id": 2, "text": "c"}]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    assert read(path) == [
        KeptDocument(("a",), "1"),
        DroppedDocument("duplicate id"),
        KeptDocument(("c",), "2"),
    ]
    assert read(path)[0] == KeptDocument(("a",), "1")


def test_names_are_told_apart_however_many_there_are(monkeypatch):
    monkeypatch.setattr(DuplicateFilter, "RECENT", 10)
    distinct = DuplicateFilter()
    once = [distinct.check(KeptDocument(("x",), str(i))) for i in range(95)]
    assert all(isinstance(record, KeptDocument) for record in once)
    again = [distinct.check(KeptDocument(("x",), str(i))) for i in range(95)]
    assert again == [DroppedDocument("duplicate id")] * 95
    assert distinct.check(KeptDocument(("x",))) == KeptDocument(("x",))


def test_a_text_file_is_one_document_or_one_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\r\n\n\xff\n")
    assert read(path) == [DroppedDocument("not UTF-8")]
    lines = read(path, Reading(by_line=True))
    assert lines == [
        KeptDocument(("one",)),
        KeptDocument(("two",)),
        DroppedDocument("empty"),
        DroppedDocument("not UTF-8"),
    ]
    path.write_bytes(b"x" * 1001)
    assert read(path) == [DroppedDocument("too long")]


def test_a_prompt_needs_an_answer(tmp_path):
    assert read_line(tmp_path, b'{"question": "q", "answer": "a"}', QUESTIONS) == KeptDocument(
        ("q", "a")
    )
    assert read_line(tmp_path, b'{"question": "q"}', QUESTIONS) == DroppedDocument("no answer")
    assert read_line(tmp_path, b'{"question": "q", "answer": " "}', QUESTIONS) == DroppedDocument(
        "empty"
    )
    assert read_line(tmp_path, b"{}", QUESTIONS) == DroppedDocument("no question and no answer")


def test_a_packed_file_that_is_cut_gives_what_it_had(tmp_path):
    lines = b"".join(b'{"text": "line %d"}\n' % i for i in range(200_000))
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines)[:-100])
    *records, last = read(path)
    assert last == DroppedDocument("cut short", str(path))
    assert records == [KeptDocument((f"line {i}",)) for i in range(len(records))]
    assert len(records) > 100_000


def parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=4)
    return path


def test_parquet_rows_are_documents(tmp_path):
    texts = ["a", None, "", "b\0", "c", "d"]
    path = parquet(tmp_path / "a.parquet", text=texts, id=[0, 1, 2, 3, 4, 4], other=[1.5] * 6)
    assert read(path) == [
        KeptDocument(("a",), "0"),
        DroppedDocument("no text"),
        DroppedDocument("empty"),
        DroppedDocument("NUL"),
        KeptDocument(("c",), "4"),
        DroppedDocument("duplicate id"),
    ]


def test_parquet_of_other_types_is_dropped(tmp_path):
    assert read(parquet(tmp_path / "a.parquet", text=[1, 2])) == [DroppedDocument("wrong type")] * 2
    path = parquet(tmp_path / "b.parquet", body=["a"])
    assert read(path) == [DroppedDocument("no text", str(path))]
    blob = parquet(tmp_path / "c.parquet", text=pa.array([b"a"], pa.binary()))
    assert read(blob) == [DroppedDocument("wrong type")]


def test_parquet_text_that_is_no_utf8_is_dropped_alone(tmp_path):
    raw = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary()).view(pa.string())
    path = parquet(tmp_path / "a.parquet", text=raw)
    assert read(path) == [
        KeptDocument(("good",)),
        DroppedDocument("not UTF-8"),
        KeptDocument(("fine",)),
    ]


def test_cut_parquet_is_one_loss(tmp_path):
    path = parquet(tmp_path / "a.parquet", text=["a"] * 100)
    path.write_bytes(path.read_bytes()[:-5])
    assert read(path) == [DroppedDocument("damaged", str(path))]


def test_one_value_in_many_rows_is_not_held_for_each(tmp_path):
    text = "x" * (1 << 20)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [text] * 300}), path)
    assert path.stat().st_size < 2 << 20
    pool = pa.default_memory_pool()
    before = pool.max_memory()
    count = sum(isinstance(r, KeptDocument) for r in read_documents(path, Reading()))
    assert count == 300
    assert pool.max_memory() - before < 64 << 20


def test_folders_are_read_in_the_order_of_names(tmp_path):
    for name in ("b/2.txt", "a.jsonl.zst", "b/1.parquet", "c.md", "d.txt.xz", "e.gz"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    names = [str(p.relative_to(tmp_path)) for p in expand([tmp_path], "--source")]
    assert names == ["a.jsonl.zst", "b/1.parquet", "b/2.txt", "d.txt.xz"]


def test_what_is_no_source_is_named(tmp_path):
    (tmp_path / "a.md").touch()
    for path, complaint in [
        (tmp_path / "a.md", "is none of .txt, .jsonl"),
        (tmp_path / "nowhere.txt", "no such file or folder"),
        (tmp_path, "holds none of .txt"),
    ]:
        with pytest.raises(UserError, match=complaint) as caught:
            expand([path], "--source")
        assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_stops_everything(tmp_path):
    with pytest.raises(UserError, match=r"^--source: cannot read .*a\.txt: No such file"):
        read(tmp_path / "a.txt")
