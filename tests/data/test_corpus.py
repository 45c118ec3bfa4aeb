import json
import lzma
from pathlib import Path

import pytest

from idlm_ds.data.corpus import Document, read_corpus, split_documents

DOCUMENTS = [Document("b", "one\ntwo"), Document("a", "naïve ∑ text"), Document("c", "")]


def as_jsonl(documents: list[Document]) -> bytes:
    lines = [json.dumps({"id": d.name, "text": d.text}, ensure_ascii=False) for d in documents]
    return ("\n".join(lines) + "\n").encode()


def numbered(count: int) -> list[Document]:
    return [Document(str(i), f"text {i}") for i in range(count)]


def test_json_lines_are_read_in_their_order(tmp_path):
    plain, packed = tmp_path / "corpus.jsonl", tmp_path / "corpus.jsonl.xz"
    plain.write_bytes(as_jsonl(DOCUMENTS))
    packed.write_bytes(lzma.compress(as_jsonl(DOCUMENTS)))
    assert read_corpus(plain) == read_corpus(packed) == DOCUMENTS


def test_a_document_without_an_id_is_named_by_its_line(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": 7, "text": "x"}\n{"text": "y"}\n')
    assert read_corpus(path) == [Document("7", "x"), Document(f"{path}, line 2", "y")]


def test_a_text_file_is_one_document_and_a_folder_one_a_file_by_name(tmp_path):
    (tmp_path / "b.txt").write_text("second", "utf-8")
    (tmp_path / "a.txt").write_text("first ∑", "utf-8")
    (tmp_path / "ignored.md").write_text("other")
    assert read_corpus(tmp_path / "b.txt") == [Document("b", "second")]
    assert read_corpus(tmp_path) == [Document("a", "first ∑"), Document("b", "second")]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("corpus.csv", b"a,b", "is none of: .jsonl, .jsonl.xz, .txt, a folder of .txt files"),
        ("corpus.jsonl", b"", "holds no document"),
        ("corpus.jsonl", b"not json\n", "corpus.jsonl"),
        ("corpus.jsonl", b'{"text": "x"}\n["text"]\n', "line 2: expected an object with a string"),
        ("corpus.jsonl", b'{"body": "x"}\n', "line 1: expected an object with a string 'text'"),
        ("corpus.jsonl", b'{"text": 3}\n', "line 1: expected an object with a string 'text'"),
        ("corpus.jsonl", b'{"text": "\xff"}\n', "cannot read"),
        ("corpus.jsonl.xz", b"not compressed", "cannot read"),
        ("corpus.jsonl.xz", lzma.compress(as_jsonl(DOCUMENTS))[:-20], "cannot read"),
        ("corpus.txt", b"\xff\xfe", "cannot read"),
    ],
)
def test_a_corpus_that_cannot_be_used_is_refused_in_one_line(tmp_path, name, content, complaint):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=complaint) as caught:
        read_corpus(path)
    assert str(caught.value).startswith("data.corpus: ")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.txt", "missing.jsonl", "missing.jsonl.xz", "missing"])
def test_a_corpus_that_is_not_there_is_refused_in_one_line(tmp_path, name):
    with pytest.raises(ValueError, match="data.corpus: ") as caught:
        read_corpus(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^data\.corpus: .* holds no document$"):
        read_corpus(tmp_path)


def test_only_a_newline_ends_a_json_line(tmp_path):
    documents = [Document("a", "one\u2028two\u0085three"), Document("b", "four")]
    path = write(tmp_path / "corpus.jsonl", as_jsonl(documents))
    assert read_corpus(path) == documents


def test_a_line_that_is_not_json_is_named_by_its_number(tmp_path):
    path = write(tmp_path / "corpus.jsonl", b'{"text": "x"}\n{"text": \n')
    with pytest.raises(ValueError, match="line 2"):
        read_corpus(path)


def test_every_twentieth_document_is_held_out():
    train, heldout = split_documents(numbered(45), heldout_every=20)
    assert [d.name for d in heldout] == ["19", "39"]
    assert [d.name for d in train] == [str(i) for i in range(45) if i not in (19, 39)]


@pytest.mark.parametrize(("count", "every"), [(2, 2), (7, 3), (100, 20), (5, 20), (2, 20)])
def test_a_split_loses_nothing_shares_nothing_and_holds_something_out(count, every):
    documents = numbered(count)
    train, heldout = split_documents(documents, heldout_every=every)
    assert sorted([*train, *heldout], key=lambda d: int(d.name)) == documents
    assert train
    assert len(heldout) == max(1, count // every)


def test_a_corpus_too_small_for_the_rule_gives_up_its_last_document():
    train, heldout = split_documents(numbered(3), heldout_every=20)
    assert [d.name for d in train] == ["0", "1"]
    assert [d.name for d in heldout] == ["2"]


@pytest.mark.parametrize("count", [0, 1])
def test_one_document_cannot_be_split(count):
    with pytest.raises(ValueError, match="at least two documents are needed"):
        split_documents(numbered(count), heldout_every=20)
