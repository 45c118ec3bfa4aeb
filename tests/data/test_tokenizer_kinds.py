"""One interface, whoever made the tokenizer."""

import io
import json
import pickle
import shutil
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer as Backend
from tokenizers import pre_tokenizers
from transformers import GPT2TokenizerFast

import idlm_ds
from idlm_ds.data.corpus import read_corpus
from idlm_ds.data.prepare.documents import KeptDocument
from idlm_ds.data.prepare.plan import PreparationPlan
from idlm_ds.data.prepare.preparation import prepare
from idlm_ds.data.prepare.sources import Corpus, SplitRule
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from tests.data.test_tokenizer import save_tokenizer
from tests.data.toy import Listed

ASSETS = Path(idlm_ds.__file__).parent / "assets"
SAID = ["My fellow citizens,\n\n  the state — of 1862.", "", " two  spaces "]


def gpt2_files(folder: Path, names: tuple[str, str] = ("vocab.json", "merges.txt")) -> Path:
    """The embedded byte-level BPE, as the two files GPT-2 came in."""
    folder.mkdir()
    content = json.loads((ASSETS / "tokenizer" / "tokenizer.json").read_text("utf-8"))
    vocab = content["model"]["vocab"] | {t["content"]: t["id"] for t in content["added_tokens"]}
    merges = [m if isinstance(m, str) else " ".join(m) for m in content["model"]["merges"]]
    (folder / names[0]).write_text(json.dumps(vocab), "utf-8")
    (folder / names[1]).write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
    return folder


def bert_files(
    folder: Path, vocab: tuple[str, ...] = ("my", "fell", "##ow", ",", "citizens")
) -> Path:
    folder.mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *vocab]), "utf-8")
    return folder


@pytest.fixture(scope="module")
def model() -> bytes:
    writer = io.BytesIO()
    texts = (d.text[:2000] for d in read_corpus(ASSETS / "sotu.jsonl.xz")[:40])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=writer,
        vocab_size=300,
        minloglevel=2,
        user_defined_symbols=["[MASK]"],
        num_threads=1,
        max_sentence_length=5000,
    )
    return writer.getvalue()


def specials(tokenizer: Tokenizer) -> tuple[int | None, ...]:
    return tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.mask_id


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_gpt2s_two_files_are_the_tokenizer_they_describe(tmp_path, names):
    whole = Tokenizer(ASSETS / "tokenizer")
    pair = Tokenizer(gpt2_files(tmp_path / "pair", names))
    assert len(pair) == len(whole) == 2048
    assert pair.encode(SAID) == whole.encode(SAID)
    assert specials(pair) == specials(whole) == (0, 0, None, None)
    assert pair.frame == (0, 0)
    assert pair.fingerprint == whole.fingerprint


def test_the_library_still_makes_one_word_of_them(tmp_path):
    """Why they are read here; the day this fails, they need not be."""
    folder = gpt2_files(tmp_path / "pair")
    trap = GPT2TokenizerFast(
        vocab_file=str(folder / "vocab.json"), merges_file=str(folder / "merges.txt")
    )
    assert len(trap) == 1


def test_a_vocabulary_of_one_word_is_refused(tmp_path):
    folder = gpt2_files(tmp_path / "pair")
    (folder / "vocab.json").write_text('{"<|endoftext|>": 0}')
    (folder / "merges.txt").write_text("")
    with pytest.raises(UserError, match=r"^--tokenizer: .*pair has a vocabulary of 1 tokens"):
        Tokenizer(folder, "--tokenizer")


def test_words_added_later_keep_their_ids(tmp_path):
    folder = gpt2_files(tmp_path / "pair")
    (folder / "added_tokens.json").write_text(json.dumps({"[MASK]": 2049, "[PAD]": 2048}))
    (folder / "special_tokens_map.json").write_text(
        json.dumps({"pad_token": "[PAD]", "bos_token": {"content": "<|endoftext|>"}})
    )
    tokenizer = Tokenizer(folder)
    assert len(tokenizer) == 2050
    assert specials(tokenizer) == (0, 0, 2048, 2049)
    assert tokenizer.num_ids == 2050
    assert tokenizer.fingerprint != Tokenizer(ASSETS / "tokenizer").fingerprint


def test_ids_may_go_beyond_the_number_of_words(tmp_path):
    folder = save_tokenizer(tmp_path / "words", eos_token="<eos>", unk_token="<unk>")
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["far"] = 70_000
    file.write_text(json.dumps(content))
    tokenizer = Tokenizer(folder)
    assert (len(tokenizer), tokenizer.num_ids) == (6, 70_001)
    source = Listed([KeptDocument(("a far b",))] * 4)
    plan = PreparationPlan(
        corpus=Corpus([(source, SplitRule("every", 4))]), tokenizer=tokenizer, length=5
    )
    assert prepare(plan, tmp_path / "out").dtype == "<u4"


def test_berts_words_lie_between_two_begins_as_public_models_know_them(tmp_path):
    tokenizer = Tokenizer(bert_files(tmp_path / "bert"))
    assert tokenizer.encode(["My fellow, citizens"]) == [[5, 6, 7, 8, 9]]
    assert specials(tokenizer) == (2, 3, 0, 4)
    assert tokenizer.frame == (2, 2)
    (tmp_path / "bert" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert Tokenizer(tmp_path / "bert").encode(["My fellow"]) == [[1, 6, 7]]


def test_a_sentencepiece_model_is_a_file_or_alone_in_a_folder(tmp_path, model):
    path = tmp_path / "spiece.model"
    path.write_bytes(model)
    tokenizer = Tokenizer(path)
    assert len(tokenizer) == 300
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert tokenizer.encode(SAID) == [processor.encode(text) for text in SAID]
    assert specials(tokenizer) == (1, 2, None, processor.piece_to_id("[MASK]"))
    assert Tokenizer(tmp_path).fingerprint == tokenizer.fingerprint
    tokenizer.save(tmp_path / "saved" / "deep")
    assert Tokenizer(tmp_path / "saved" / "deep").fingerprint == tokenizer.fingerprint
    (first,) = tokenizer.encode(["the state of the union"])
    assert tokenizer.decode([[1, *first, 2, *first], []]) == [
        "<s>the state of the union</s>the state of the union",
        "",
    ]


def test_a_mask_that_no_file_names_is_found_by_what_it_is_called(tmp_path):
    folder = save_tokenizer(tmp_path / "words", eos_token="<eos>", unk_token="<unk>")
    assert Tokenizer(folder).mask_id is None
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["<|mdm_mask|>"] = 5
    file.write_text(json.dumps(content))
    assert Tokenizer(folder).mask_id == 5


def test_what_the_file_says_of_truncation_and_padding_is_not_heeded(tmp_path):
    shutil.copytree(ASSETS / "tokenizer", tmp_path / "copy")
    backend = Backend.from_file(str(tmp_path / "copy" / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=16)
    backend.save(str(tmp_path / "copy" / "tokenizer.json"))
    whole, copy = Tokenizer(ASSETS / "tokenizer"), Tokenizer(tmp_path / "copy")
    assert copy.encode(SAID) == whole.encode(SAID)
    assert copy.encoder().encode(SAID) == whole.encode(SAID)


@pytest.mark.parametrize("kind", ["bpe", "bert", "pieces"])
def test_no_document_can_name_a_special_token_into_the_data(tmp_path, kind, model):
    if kind == "pieces":
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "a.model").write_bytes(model)
    make = {"bpe": gpt2_files, "bert": bert_files}
    folder = make[kind](tmp_path / kind) if kind in make else tmp_path / kind
    tokenizer = Tokenizer(folder)
    named = ["a <|endoftext|> [CLS] [SEP] <s> </s> b"]
    encoder = pickle.loads(pickle.dumps(tokenizer.encoder()))
    for each in (tokenizer.encoder(), encoder):
        (ids,) = each.encode(named)
        assert not {tokenizer.eos_id, tokenizer.bos_id} & set(ids)
        assert each.encode(["My fellow"]) == tokenizer.encode(["My fellow"])


def test_prompts_can_still_name_special_tokens():
    tokenizer = Tokenizer(ASSETS / "tokenizer")
    assert tokenizer.eos_id in tokenizer.encode(["a<|endoftext|>"])[0]


def test_saving_and_loading_keeps_the_fingerprint(tmp_path):
    for make in (gpt2_files, bert_files):
        tokenizer = Tokenizer(make(tmp_path / make.__name__))
        tokenizer.save(tmp_path / f"{make.__name__}-saved")
        saved = Tokenizer(tmp_path / f"{make.__name__}-saved")
        assert saved.fingerprint == tokenizer.fingerprint
        assert specials(saved) == specials(tokenizer)


def test_the_same_words_cut_in_another_way_have_another_fingerprint(tmp_path):
    shutil.copytree(ASSETS / "tokenizer", tmp_path / "copy")
    file = str(tmp_path / "copy" / "tokenizer.json")
    backend = Backend.from_file(file)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.save(file)
    other = Tokenizer(tmp_path / "copy").fingerprint
    assert other != Tokenizer(ASSETS / "tokenizer").fingerprint


def test_embedded_models_carry_the_embedded_tokenizer():
    prints = {Tokenizer(ASSETS / name).fingerprint for name in ("tokenizer", "teacher", "judge")}
    assert len(prints) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{}"),
        ("vocab.txt", b"\xff\xfe\x00"),
        ("a.model", b"no protocol buffer"),
        ("vocab.json", b"{"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "merges.txt").write_bytes(b"a b\n")
    with pytest.raises(UserError, match=r"^data\.tokenizer: ") as caught:
        Tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
