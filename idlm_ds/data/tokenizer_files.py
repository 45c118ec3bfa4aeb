"""Which files a tokenizer can be opened from."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.implementations import BertWordPieceTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from idlm_ds.data.vocabulary import FastVocabulary, PieceVocabulary, Vocabulary
from idlm_ds.errors import UserError

BPE_PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
END_OF_TEXT = "<|endoftext|>"
ALLOWED = "tokenizer.json, vocab.json and merges.txt, vocab.txt or one sentencepiece .model"


def open_vocabulary(path: Path, key: str) -> Vocabulary:
    """Open a tokenizer from whatever files there are.

    Args:
        path: A folder, or a sentencepiece ``.model`` file.
        key: What names it, for messages.

    Raises:
        UserError: There is no tokenizer, or it is damaged, or it has no words.
    """
    reader = _reader(path)
    if reader is None:
        raise UserError(f"{key}: {path} holds no tokenizer.json; known: {ALLOWED}")
    try:
        vocabulary = reader(path)
    except Exception as error:  # the Rust parser raises the base class itself
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{key}: cannot load {path}: {reason}") from error
    if len(vocabulary) < 2:
        raise UserError(f"{key}: {path} has a vocabulary of {len(vocabulary)} tokens; not a text's")
    return vocabulary


def _reader(path: Path) -> Callable[[Path], Vocabulary] | None:
    if path.is_file() and ".model" in path.suffixes:
        return _pieces
    if (path / "tokenizer.json").is_file():
        return _automatic
    if any((path / words).is_file() and (path / merges).is_file() for words, merges in BPE_PAIRS):
        return _byte_pairs
    if (path / "vocab.txt").is_file():
        return _word_pieces
    if len(list(path.glob("*.model"))) == 1:
        return _pieces
    return None


def _pieces(path: Path) -> Vocabulary:
    file = path if path.is_file() else next(path.glob("*.model"))
    return PieceVocabulary(file.read_bytes())


def _automatic(folder: Path) -> Vocabulary:
    return FastVocabulary(
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    )


def _byte_pairs(folder: Path) -> Vocabulary:
    """GPT-2's two files.

    They are read here: given them by name, transformers 5 makes a vocabulary of one token of them,
    without a word.
    """
    words, merges = next(pair for pair in BPE_PAIRS if (folder / pair[0]).is_file())
    table = json.loads((folder / words).read_text("utf-8"))
    lines = (folder / merges).read_text("utf-8").split("\n")
    pairs = [(a, b) for a, b in (line.split() for line in lines if line[:8] != "#version" and line)]
    backend = Tokenizer(models.BPE(vocab=table, merges=pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    usual = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    return _named(folder, backend, usual if END_OF_TEXT in table else {})


def _word_pieces(folder: Path) -> Vocabulary:
    config = _read_json(folder / "tokenizer_config.json")
    backend = BertWordPieceTokenizer(
        str(folder / "vocab.txt"), lowercase=config.get("do_lower_case", True)
    )._tokenizer
    names = ("cls", "sep", "pad", "mask", "unk")
    return _named(folder, backend, {f"{name}_token": f"[{name.upper()}]" for name in names})


def _named(folder: Path, backend: Tokenizer, usual: Mapping[str, str]) -> Vocabulary:
    """Add what the folder says of special tokens."""
    added = _read_json(folder / "added_tokens.json")
    backend.add_tokens([AddedToken(w, special=True) for w in sorted(added, key=added.__getitem__)])
    named = dict(usual) | _special_names(
        _read_json(folder / "tokenizer_config.json"), _read_json(folder / "special_tokens_map.json")
    )
    return FastVocabulary(PreTrainedTokenizerFast(tokenizer_object=backend, **named))


def _special_names(*files: Mapping[str, Any]) -> dict[str, str]:
    names: dict[str, str] = {}
    for content in files:
        for role, told in content.items():
            word = told.get("content") if isinstance(told, dict) else told
            if role.endswith("_token") and isinstance(word, str):
                names[role] = word
    return names


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
