import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idlm_ds.data.prepare.packing import EncodedTexts, PackedRows, PadPacker, RowLayout, WrapPacker
from tests.data.letters import BOS, EOS, PAD
from tests.data.toy import cases

TEXTS = st.lists(st.lists(st.integers(3, 60_000), max_size=30), max_size=12)


def layout(length: int, *, framed: bool = True, ends: bool = True) -> RowLayout:
    return RowLayout(length=length, bos=BOS, eos=EOS, pad=PAD, framed=framed, ends=ends)


def encoded(texts: list[list[int]]) -> EncodedTexts:
    tokens = np.array([t for text in texts for t in text], dtype=np.uint16)
    return EncodedTexts(tokens, np.array([len(text) for text in texts], dtype=np.int64))


def in_groups(texts: list[list[int]], cuts: list[int]) -> list[list[list[int]]]:
    edges = [0, *sorted(c % (len(texts) + 1) for c in cuts), len(texts)]
    return [texts[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def rows_of(packed: list[PackedRows], length: int) -> list[list[int]]:
    return np.concatenate([np.empty((0, length), int), *(p.rows for p in packed)]).tolist()


@cases(400)
@given(
    texts=TEXTS,
    length=st.integers(3, 12),
    framed=st.booleans(),
    ends=st.booleans(),
    cuts=st.lists(st.integers(0, 12), max_size=4),
)
def test_wrapped_text_is_all_documents_end_to_end_however_they_come(
    texts, length, framed, ends, cuts
):
    shape = layout(length, framed=framed, ends=ends)
    got, carry = [], []
    for group in in_groups(texts, cuts):
        # A packer made anew of what was carried is one that was interrupted there.
        packer = WrapPacker(shape, carry)
        got.append(packer.add(encoded(group)))
        carry = packer.carry
    stream = [t for text in texts for t in [*text, *([EOS] if ends else [])]]
    rows = rows_of(got, length)
    inside = [row[1:-1] if framed else row for row in rows]
    assert [t for row in inside for t in row] + carry == stream
    assert len(carry) < shape.piece
    assert all(row[0] == BOS and row[-1] == EOS for row in rows if framed)
    assert all(p.spans is None and p.truncated == p.unanswered == 0 for p in got)


@cases(300)
@given(texts=TEXTS, length=st.integers(4, 12), framed=st.booleans(), ends=st.booleans())
def test_padded_text_is_one_document_a_row(texts, length, framed, ends):
    got = PadPacker(layout(length, framed=framed, ends=ends), prompted=False).add(encoded(texts))
    room = length - framed - ends
    expected, stops = [], []
    for text in texts:
        row = [*([BOS] if framed else []), *text[:room], *([EOS] if ends else [])]
        stops.append(len(row))
        expected.append(row + [PAD] * (length - len(row)))
    assert got.rows.tolist() == expected
    assert got.spans is not None
    assert got.spans.tolist() == [[0, stop] for stop in stops]
    assert got.truncated == sum(len(text) > room for text in texts)


@cases(300)
@given(pairs=st.lists(st.tuples(*[st.lists(st.integers(3, 99), max_size=8)] * 2), max_size=8))
def test_an_answer_is_what_the_loss_is_about_and_one_without_room_is_left_out(pairs):
    length, room = 9, 7
    texts = encoded([text for pair in pairs for text in pair])
    got = PadPacker(layout(length), prompted=True).add(texts)
    expected, spans = [], []
    for prompt, answer in pairs:
        if len(prompt) < room:
            row = [BOS, *(prompt + answer)[:room], EOS]
            expected.append(row + [PAD] * (length - len(row)))
            spans.append([1 + len(prompt), len(row)])
    assert got.rows.tolist() == expected
    assert got.spans is not None
    assert got.spans.tolist() == spans
    assert got.unanswered == len(pairs) - len(expected)
    assert all(first < stop for first, stop in spans)


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_rows_keep_the_integers_of_their_tokens(dtype):
    texts = EncodedTexts(np.arange(3, 40).astype(dtype), np.array([37]))
    assert WrapPacker(layout(5)).add(texts).rows.dtype == dtype
    assert PadPacker(layout(5), prompted=False).add(texts).rows.dtype == dtype
