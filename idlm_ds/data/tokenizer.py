"""Tokenizers of any kind, opened from the files in a folder."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers.implementations import BertWordPieceTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from idlm_ds.data.tokenizer_backends import (
    Encoder,
    HuggingFaceBackend,
    SentencePieceBackend,
    TokenizerBackend,
)
from idlm_ds.errors import UserError

PROBES = (
    "The quick brown fox, 1862: it's jumping over 13 lazy dogs.",
    "  two  spaces\n\nand lines\t",
    "naïve ∑ 中文 🎈 \u0301",
    "UPPER lower CamelCase http://example.org/?a=b_c",
)
"""Texts whose tokens distinguish tokenizers with the same vocabulary."""

BPE_PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""File names of GPT-2's vocabulary and merges."""

END_OF_TEXT = "<|endoftext|>"
ALLOWED = "tokenizer.json, vocab.json and merges.txt, vocab.txt or one sentencepiece .model"


class Tokenizer:
    """Conversion between text and token ids, and the ids of the special tokens."""

    def __init__(self, folder: Path, key: str = "data.tokenizer") -> None:
        """Open a folder in the layout of Hugging Face, GPT-2 or BERT, or a sentencepiece model.

        Args:
            folder: The folder, or a ``.model`` file.
            key: Option or recipe key of the folder, for messages.

        Raises:
            UserError: The folder or its file is missing or damaged, or names no end-of-text token.
        """
        self.folder = folder
        self._backend = _open_backend(folder, key)
        specials = self._backend.specials
        if specials.eos is None:
            raise UserError(f"{key}: {folder} names no eos_token")
        self.eos_id = specials.eos
        self.bos_id = specials.eos if specials.bos is None else specials.bos
        self.pad_id = specials.pad
        """None if the tokenizer has none; padding is then end-of-text."""
        self.mask_id = specials.mask
        """None if the tokenizer has none; a masked model then adds one id."""
        self.frame = self._backend.frame or (self.bos_id, self.eos_id)
        """Ids that open and close a row of wrapped text; the second also ends a document."""
        self._encoder = self._backend.encoder(spells_specials=False)

    def __len__(self) -> int:
        return len(self._backend)

    @cached_property
    def num_ids(self) -> int:
        """One more than the largest id; larger than the number of tokens if ids are skipped."""
        return 1 + max(i for i, _ in self._backend.table())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the vocabulary, the begin and end tokens, and the tokens of ``PROBES``.

        It does not depend on the layout of the files or on the version of a library that saved
        them, nor on which tokens are padding and mask.
        """
        content = {
            "words": list(self._backend.table()),
            "special": [self.bos_id, self.eos_id, *self.frame],
            "probes": self.encode(PROBES),
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text; names of special tokens in it become those tokens."""
        return self._encoder.encode(texts)

    def encoder(self) -> Encoder:
        """Return an encoder for documents, in which no text becomes a special token."""
        return self._backend.encoder(spells_specials=True)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each row, special tokens included."""
        return self._backend.decode(rows)

    def save(self, folder: Path) -> None:
        """Write the files that a later ``Tokenizer(folder)`` needs."""
        self._backend.save(folder)


def _open_backend(path: Path, key: str) -> TokenizerBackend:
    reader = _reader(path)
    if reader is None:
        raise UserError(f"{key}: {path} holds no tokenizer.json; known: {ALLOWED}")
    try:
        backend = reader(path)
    except Exception as error:  # the Rust parser raises Exception itself
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{key}: cannot load {path}: {reason}") from error
    if len(backend) < 2:
        raise UserError(f"{key}: {path} has a vocabulary of {len(backend)} tokens; not a text's")
    return backend


def _reader(path: Path) -> Callable[[Path], TokenizerBackend] | None:
    """Choose a reader by the files that exist."""
    if path.is_file() and ".model" in path.suffixes:
        return _read_sentencepiece
    if (path / "tokenizer.json").is_file():
        return _read_hugging_face
    if any((path / vocab).is_file() and (path / merges).is_file() for vocab, merges in BPE_PAIRS):
        return _read_byte_pairs
    if (path / "vocab.txt").is_file():
        return _read_word_pieces
    if len(list(path.glob("*.model"))) == 1:
        return _read_sentencepiece
    return None


def _read_sentencepiece(path: Path) -> TokenizerBackend:
    file = path if path.is_file() else next(path.glob("*.model"))
    return SentencePieceBackend(file.read_bytes())


def _read_hugging_face(folder: Path) -> TokenizerBackend:
    return HuggingFaceBackend(
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    )


def _read_byte_pairs(folder: Path) -> TokenizerBackend:
    """Read GPT-2's two files.

    transformers 5 silently makes a vocabulary of one token if it is given these files by name.
    """
    # A tokenizer of the Rust library, assembled like the one in GPT-2's tokenizer.json.
    vocab_file, merges_file = next(pair for pair in BPE_PAIRS if (folder / pair[0]).is_file())
    vocab = json.loads((folder / vocab_file).read_text("utf-8"))
    lines = (folder / merges_file).read_text("utf-8").split("\n")
    merges = [
        (a, b) for a, b in (line.split() for line in lines if line[:8] != "#version" and line)
    ]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    return _with_specials(folder, tokenizer, specials if END_OF_TEXT in vocab else {})


def _read_word_pieces(folder: Path) -> TokenizerBackend:
    config = _read_json(folder / "tokenizer_config.json")
    tokenizer = BertWordPieceTokenizer(
        str(folder / "vocab.txt"), lowercase=config.get("do_lower_case", True)
    )._tokenizer
    names = ("cls", "sep", "pad", "mask", "unk")
    return _with_specials(
        folder, tokenizer, {f"{name}_token": f"[{name.upper()}]" for name in names}
    )


def _with_specials(
    folder: Path, tokenizer: tokenizers.Tokenizer, defaults: Mapping[str, str]
) -> TokenizerBackend:
    """Add the tokens and the special roles that the other files of the folder name."""
    added = _read_json(folder / "added_tokens.json")
    tokenizer.add_tokens(
        [AddedToken(t, special=True) for t in sorted(added, key=added.__getitem__)]
    )
    roles = dict(defaults) | _special_roles(
        _read_json(folder / "tokenizer_config.json"), _read_json(folder / "special_tokens_map.json")
    )
    return HuggingFaceBackend(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles))


def _special_roles(*files: Mapping[str, Any]) -> dict[str, str]:
    roles: dict[str, str] = {}
    for content in files:
        for role, value in content.items():
            token = value.get("content") if isinstance(value, dict) else value
            if role.endswith("_token") and isinstance(token, str):
                roles[role] = token
    return roles


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
