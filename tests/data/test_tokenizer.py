import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import idlm_ds
from idlm_ds.data.tokenizer import Tokenizer

ASSETS = Path(idlm_ds.__file__).parent / "assets"
WORDS = ["<eos>", "<unk>", "a", "b", "c"]


def save_tokenizer(folder: Path, **special: str) -> Path:
    backend = Backend(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    return folder


@pytest.fixture
def tokenizer(tmp_path) -> Tokenizer:
    return Tokenizer(save_tokenizer(tmp_path / "words", eos_token="<eos>", unk_token="<unk>"))


def test_texts_become_ids_without_special_tokens(tokenizer):
    assert tokenizer.encode(["a b", "", "c z a"]) == [[2, 3], [], [4, 1, 2]]
    assert tokenizer.eos_id == 0
    assert len(tokenizer) == 5


def test_decoding_keeps_special_tokens(tokenizer):
    assert tokenizer.decode([[2, 0, 3], [4]]) == ["a <eos> b", "c"]


def test_a_saved_tokenizer_is_the_same_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "copy")
    copy = Tokenizer(tmp_path / "copy")
    assert copy.encode(["c a b"]) == [[4, 2, 3]]
    assert (copy.eos_id, len(copy)) == (tokenizer.eos_id, len(tokenizer))


def test_the_embedded_tokenizer_gives_back_any_text():
    tokenizer = Tokenizer(ASSETS / "tokenizer")
    texts = ["My fellow citizens,\n\n  the state — of 1862 — is naïve ∑ 🎈.", " \t"]
    rows = tokenizer.encode(texts)
    assert tokenizer.decode(rows) == texts
    assert all(0 <= token < len(tokenizer) for row in rows for token in row)
    assert tokenizer.eos_id not in {token for row in rows for token in row}
    assert tokenizer.decode([[tokenizer.eos_id]]) == ["<|endoftext|>"]


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"^data\.tokenizer: .*nowhere holds no tokenizer\.json; known: "
    ):
        Tokenizer(tmp_path / "nowhere")


def test_a_tokenizer_without_an_end_of_text_is_refused(tmp_path):
    folder = save_tokenizer(tmp_path / "endless", unk_token="<unk>")
    assert "eos_token" not in json.loads((folder / "tokenizer_config.json").read_text())
    with pytest.raises(ValueError, match=r"^data\.tokenizer: .*endless names no eos_token$"):
        Tokenizer(folder)
