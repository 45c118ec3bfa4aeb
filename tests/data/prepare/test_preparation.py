"""Preparation: the same shards whoever makes them, however often it is interrupted."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import idlm_ds
from idlm_ds.data.index import HELDOUT, TRAIN, read_index
from idlm_ds.data.prepare.documents import DroppedDocument, KeptDocument, Reading
from idlm_ds.data.prepare.plan import PreparationPlan
from idlm_ds.data.prepare.preparation import prepare
from idlm_ds.data.prepare.sources import Corpus, FileSource, SplitRule, count_documents
from idlm_ds.data.prepared import span_array, token_array
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from tests.data.letters import BOS, EOS, LETTERS, PAD, LetterTokenizer
from tests.data.toy import Listed, cases, contents, jsonl, make, plan

ASSETS = Path(idlm_ds.__file__).parent / "assets"
TEXTS = st.lists(st.text(alphabet=LETTERS[:-2], min_size=1, max_size=20), min_size=6, max_size=25)


def rows(folder: Path, split: str = TRAIN) -> list[list[int]]:
    index = read_index(folder, "x")
    arrays = [token_array(index, folder, shard) for shard in index.splits[split]]
    return [row for array in arrays for row in array.tolist()]


def stream(texts: list[str]) -> list[int]:
    return [t for text in texts for t in [*(LETTERS.index(c) + 3 for c in text), EOS]]


def test_every_document_is_in_one_split_and_every_token_of_it_in_a_row(tmp_path):
    texts = ["abc", "defgh", "xyz", "ijklmnop", "q", "uvw"]
    index = make(tmp_path, texts, length=5)
    for split, texts_of_split in (
        (TRAIN, ["abc", "defgh", "ijklmnop", "q"]),
        (HELDOUT, ["xyz", "uvw"]),
    ):
        got = rows(tmp_path, split)
        assert all(row[0] == BOS and row[-1] == EOS for row in got)
        inside = [t for row in got for t in row[1:-1]]
        assert inside == stream(texts_of_split)[: len(inside)]
        assert len(stream(texts_of_split)) - len(inside) < 3
    counts = {"read": 6, "kept": 6, "train": 4, "heldout": 2, "repaired": 0, "truncated": 0}
    assert index.documents == counts | {"dropped": {}}
    assert index.dtype == "<u2"
    occurrences = np.fromfile(tmp_path / "token-counts.bin", "<i8")
    every = np.array(
        [t for split in (TRAIN, HELDOUT) for row in rows(tmp_path, split) for t in row]
    )
    assert occurrences.tolist() == np.bincount(every, minlength=40).tolist()


@cases(80)
@given(texts=TEXTS, data=st.data())
def test_interruptions_change_no_byte(tmp_path_factory, texts, data):
    pack = data.draw(st.sampled_from(["wrap", "pad"]))
    whole, cut = (tmp_path_factory.mktemp(name) for name in ("whole", "cut"))
    make(whole, texts, pack=pack)
    for at in sorted(data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=4))):
        with pytest.raises(KeyboardInterrupt):
            make(cut, texts, pack=pack, fails_at=at)
        assert not (cut / "index.json").exists()
    make(cut, texts, pack=pack)
    assert contents(whole) == contents(cut)


def test_what_is_finished_is_not_encoded_again(tmp_path):
    texts = [f"{a}{b}" * 9 for a in "abcdef" for b in "uvwxyz"]
    make(tmp_path / "whole", texts)
    seen: list[int] = []
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        make(cut, texts, fails_at=30)
    prepare(plan(texts), cut, on_tokens=seen.append)
    assert 0 < sum(seen) < sum(map(len, texts)) / 2
    assert contents(cut) == contents(tmp_path / "whole")


def real_plan(folder: Path, **changes) -> PreparationPlan:
    files = FileSource([folder / "a.jsonl"], Reading())
    tokenizer = Tokenizer(ASSETS / "tokenizer")
    defaults = {"length": 16, "shard_bytes": 2000}
    return PreparationPlan(
        corpus=Corpus([(files, SplitRule("every", 5))]), tokenizer=tokenizer, **defaults | changes
    )


def test_any_number_of_workers_gives_the_same_bytes(tmp_path):
    texts = [f"My fellow citizens, in the year {1790 + i} " * (i % 7 + 1) for i in range(60)]
    jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    made = []
    for workers in (1, 2, 3):
        out = tmp_path / str(workers)
        prepare(real_plan(tmp_path, workers=workers), out)
        made.append(contents(out))
    assert made[0] == made[1] == made[2]
    assert len([name for name in made[0] if name.startswith("train-")]) == 3


def test_an_answer_carries_its_mask(tmp_path):
    source = Listed(
        [KeptDocument(("ab", "cde")), KeptDocument(("f", "g")), KeptDocument(("abcdefghij", "k"))]
        * 2
    )
    preparation = PreparationPlan(
        corpus=Corpus([(source, SplitRule("from", 3))]),
        tokenizer=LetterTokenizer(),
        length=10,
        pack="pad",
        separator=" ",
    )
    index = prepare(preparation, tmp_path)
    letters = {c: i + 3 for i, c in enumerate(LETTERS)}
    first = [BOS, *(letters[c] for c in "ab cde"), EOS, PAD, PAD]
    second = [BOS, *(letters[c] for c in "f g"), EOS, *[PAD] * 5]
    assert rows(tmp_path) == [first, second]
    (shard,) = index.splits[TRAIN]
    spans = span_array(tmp_path, shard)
    assert spans is not None
    assert spans.tolist() == [[4, 8], [3, 5]]
    assert index.documents["dropped"] == {"no room for an answer": 2}
    assert (index.documents["read"], index.documents["kept"]) == (6, 4)
    assert index.has_spans


def test_kept_and_dropped_add_up_to_read(tmp_path):
    records = [
        KeptDocument(("abcdef",)),
        DroppedDocument("NUL"),
        KeptDocument(("ab",), None, True),
        DroppedDocument("cut short", "x"),
    ]
    source = Listed(records * 5)
    preparation = PreparationPlan(
        corpus=Corpus([(source, SplitRule("every", 4))]), tokenizer=LetterTokenizer(), length=6
    )
    counts = prepare(preparation, tmp_path).documents
    assert counts["read"] == 20 == counts["kept"] + sum(counts["dropped"].values())
    assert counts["dropped"] == {"NUL": 5, "cut short": 5}
    assert counts["repaired"] == 5
    assert counts["kept"] == counts[TRAIN] + counts[HELDOUT]
    assert read_index(tmp_path, "x").damaged == {"x": "cut short"}


def test_more_words_than_two_bytes_hold_take_four(tmp_path):
    assert make(tmp_path, ["abcdefg"] * 6, tokenizer=LetterTokenizer(size=65_536)).dtype == "<u2"
    big = make(tmp_path / "big", ["abcdefg"] * 6, tokenizer=LetterTokenizer(size=65_537))
    assert big.dtype == "<u4"
    assert rows(tmp_path) == rows(tmp_path / "big")


def test_doing_it_again_changes_nothing_and_asking_for_something_else_is_refused(tmp_path):
    texts = ["abcdefgh"] * 6
    made = make(tmp_path, texts)
    before = contents(tmp_path)
    again = make(tmp_path, texts)
    assert again.fingerprint == made.fingerprint
    assert contents(tmp_path) == before
    for changes, complaint in [
        ({"length": 7}, "another length"),
        ({"pack": "pad"}, "another pack"),
        ({"ends": False}, "another ends"),
        ({"tokenizer": LetterTokenizer("other")}, r"by tokenizer [0-9a-f]{12}, .* [0-9a-f]{12}"),
    ]:
        with pytest.raises(UserError, match=f"^--output: .*{complaint}.*--fresh$"):
            make(tmp_path, texts, **changes)
    assert contents(tmp_path) == before
    assert prepare(plan(texts, length=7), tmp_path, fresh=True).length == 7


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"length": 7}, "another length: 6, now 7"),
        ({"shard_bytes": 128}, "another shard size: 64, now 128"),
        ({"tokenizer": LetterTokenizer("other")}, "another tokenizer: "),
    ],
)
def test_an_interrupted_preparation_goes_on_only_as_it_began(tmp_path, changes, complaint):
    texts = ["abcdefgh"] * 30
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, texts, fails_at=25)
    with pytest.raises(UserError, match=complaint):
        make(tmp_path, texts, **changes)


def test_a_finished_shard_that_was_altered_stops_the_rest(tmp_path):
    texts = ["abcdefgh"] * 30
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, texts, fails_at=25)
    path = tmp_path / "train-00001.bin"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UserError, match=r"^data\.corpus: .* is unfinished; run tools/prepare_data"):
        read_index(tmp_path, "data.corpus")
    with pytest.raises(UserError, match="train-00001.bin is missing or was altered since"):
        make(tmp_path, texts)
    (tmp_path / "unfinished.json").write_text("{")
    with pytest.raises(UserError, match="unfinished.json is damaged"):
        make(tmp_path, texts)


def test_other_peoples_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        make(tmp_path, ["abc"] * 9)
    with pytest.raises(UserError, match="holds other files"):
        prepare(plan(["abc"] * 9), tmp_path, fresh=True)
    with pytest.raises(UserError, match="is no folder"):
        make(tmp_path / "thesis.txt", ["abc"] * 9)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_nothing_at_all_is_an_error_that_says_why(tmp_path):
    source = Listed([DroppedDocument("empty")] * 3 + [DroppedDocument("NUL"), KeptDocument(("a",))])
    preparation = PreparationPlan(
        corpus=Corpus([(source, SplitRule("every", 9))]), tokenizer=LetterTokenizer(), length=64
    )
    with pytest.raises(UserError, match=r"not one row of 64 .* 5 documents .* 1 NUL, 3 empty\)$"):
        prepare(preparation, tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"length": 2}, "at least 3 here, got 2"),
        ({"length": 0, "framed": False}, "at least 1 here"),
        ({"length": 2, "pack": "pad"}, "at least 3 here"),
        ({"separator": " "}, "one pair a row; use pad"),
    ],
)
def test_a_layout_without_room_for_text_is_refused(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        plan(["abc"], **changes)


def test_the_last_documents_can_be_held_out(tmp_path):
    source = Listed([KeptDocument((text,)) for text in ("abc", "def", "ghi", "jkl")])
    assert count_documents(source) == 4
    preparation = PreparationPlan(
        corpus=Corpus([(source, SplitRule("from", 3))]),
        tokenizer=LetterTokenizer(),
        length=3,
        framed=False,
    )
    prepare(preparation, tmp_path)
    assert [t for row in rows(tmp_path, HELDOUT) for t in row] == stream(["jkl"])[:3]


def test_the_index_says_where_everything_came_from(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"text": "My fellow citizens"}] * 12)
    prepare(real_plan(tmp_path), tmp_path / "out")
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    size = (tmp_path / "a.jsonl").stat().st_size
    (source,) = index["source"]["corpus"]
    assert source["files"] == [{"name": "a.jsonl", "bytes": size}]
    assert source["heldout"] == {"every": 5}
    assert index["words"]["size"] == 2048
    assert Tokenizer(tmp_path / "out" / "tokenizer").fingerprint == index["words"]["sha256"]
