"""Backends of a tokenizer: Hugging Face tokenizers and sentencepiece.

This module imports neither transformers nor torch, so that worker processes start quickly.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import sentencepiece
import tokenizers

MASK_NAMES = ("[MASK]", "<mask>", "<|mdm_mask|>", "<|mask|>")
"""Names of mask tokens, for tokenizers that do not say which token is their mask."""


LOCAL_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"}
"""Normalizers whose result for a character never depends on what lies beyond a blank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecialTokens:
    """Ids of special tokens; None where the tokenizer has none."""

    bos: int | None
    eos: int | None
    pad: int | None
    mask: int | None


class Encoder(Protocol):
    """The part of a tokenizer that encodes text, picklable for worker processes."""

    @property
    def is_wordwise(self) -> bool:
        """Whether no token extends over a blank that a word follows."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without special tokens."""


class TokenizerBackend(Protocol):
    """Operations that ``Tokenizer`` needs of a tokenizer library."""

    @property
    def specials(self) -> SpecialTokens:
        """Ids of the special tokens."""

    @property
    def frame(self) -> tuple[int, int] | None:
        """Ids that open and close a row of wrapped text; None for BOS and EOS."""

    def __len__(self) -> int: ...

    def table(self) -> Iterator[tuple[int, str]]:
        """Yield every id with its token."""

    def encoder(self, *, spells_specials: bool) -> Encoder:
        """Return the encoder.

        The name of a special token in a text is encoded as ordinary text if it ``spells_specials``,
        and becomes that token otherwise.
        """

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each row, special tokens included."""

    def save(self, folder: Path) -> None:
        """Write the files from which the tokenizer can be opened."""


class HuggingFaceEncoder:
    """Encoder of a Hugging Face tokenizer, backed by the Rust library alone."""

    def __init__(self, content: str, spells_specials: bool) -> None:
        """Read the JSON of a tokenizer; for the rest see ``TokenizerBackend.encoder``."""
        self._arguments = content, spells_specials
        self._backend = tokenizers.Tokenizer.from_str(content)
        self._backend.encode_special_tokens = spells_specials
        self.is_wordwise = spells_specials and is_wordwise(json.loads(content))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments: the Rust object loses ``encode_special_tokens`` when pickled."""
        return type(self), self._arguments

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See ``Encoder``."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


class HuggingFaceBackend:
    """Backend of a Hugging Face tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        """Disable truncation and padding of a ``PreTrainedTokenizerFast``."""
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()

    def __len__(self) -> int:
        return len(self._tokenizer)

    @property
    def specials(self) -> SpecialTokens:
        """See ``TokenizerBackend``; BERT's [CLS] and [SEP] serve as begin and end."""
        tokenizer = self._tokenizer
        mask_ids = (self._backend.token_to_id(name) for name in MASK_NAMES)
        return SpecialTokens(
            bos=_first(tokenizer.bos_token_id, tokenizer.cls_token_id),
            eos=_first(tokenizer.eos_token_id, tokenizer.sep_token_id),
            pad=tokenizer.pad_token_id,
            mask=_first(tokenizer.mask_token_id, *mask_ids),
        )

    @property
    def frame(self) -> tuple[int, int] | None:
        """See ``TokenizerBackend``; public models with BERT's tokenizer use [CLS] at both ends."""
        tokenizer = self._tokenizer
        if tokenizer.eos_token_id is None and tokenizer.cls_token_id is not None:
            return tokenizer.cls_token_id, tokenizer.cls_token_id
        return None

    def table(self) -> Iterator[tuple[int, str]]:
        """See ``TokenizerBackend``."""
        yield from sorted((i, token) for token, i in self._tokenizer.get_vocab().items())

    def encoder(self, *, spells_specials: bool) -> Encoder:
        """See ``TokenizerBackend``."""
        return HuggingFaceEncoder(self._backend.to_str(), spells_specials)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """See ``TokenizerBackend``."""
        return self._tokenizer.batch_decode(rows, skip_special_tokens=False)

    def save(self, folder: Path) -> None:
        """See ``TokenizerBackend``."""
        self._tokenizer.save_pretrained(folder)


@dataclass(frozen=True, slots=True)
class SentencePieceEncoder:
    """Encoder of a sentencepiece model; names of special tokens in a text are ordinary text."""

    model: Any
    is_wordwise: ClassVar[bool] = False

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See ``Encoder``."""
        return self.model.encode(list(texts), out_type=int, num_threads=1)


class SentencePieceBackend:
    """Backend of a sentencepiece model."""

    FILE = "tokenizer.model"
    frame = None

    def __init__(self, content: bytes) -> None:
        """See class.

        Raises:
            RuntimeError: The bytes are not a model.
        """
        self._content = content
        self._model = sentencepiece.SentencePieceProcessor()
        self._model.load_from_serialized_proto(content)

    def __len__(self) -> int:
        return self._model.get_piece_size()

    @property
    def specials(self) -> SpecialTokens:
        """See ``TokenizerBackend``."""
        model = self._model
        mask_ids = [i for name in MASK_NAMES if (i := model.piece_to_id(name)) != model.unk_id()]
        # sentencepiece says -1 where there is no such token.
        ids = [i if i >= 0 else None for i in (model.bos_id(), model.eos_id(), model.pad_id())]
        return SpecialTokens(bos=ids[0], eos=ids[1], pad=ids[2], mask=_first(*mask_ids))

    def table(self) -> Iterator[tuple[int, str]]:
        """See ``TokenizerBackend``."""
        for i in range(len(self)):
            yield i, self._model.id_to_piece(i)

    def encoder(self, *, spells_specials: bool) -> Encoder:
        """See ``TokenizerBackend``; names of special tokens are always ordinary text."""
        del spells_specials
        return SentencePieceEncoder(self._model)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """See ``TokenizerBackend``."""
        return [self._decode(row) for row in rows]

    def _decode(self, row: Sequence[int]) -> str:
        # sentencepiece drops control tokens, so the text between them is decoded piece by piece.
        texts: list[str] = []
        pending: list[int] = []
        for token in map(int, row):
            if self._model.is_control(token):
                texts += [self._model.decode(pending), self._model.id_to_piece(token)]
                pending = []
            else:
                pending.append(token)
        return "".join([*texts, self._model.decode(pending)])

    def save(self, folder: Path) -> None:
        """See ``TokenizerBackend``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.FILE).write_bytes(self._content)


def _first(*ids: int | None) -> int | None:
    return next((i for i in ids if i is not None), None)


def is_wordwise(content: Mapping[str, Any]) -> bool:
    """Tell whether text can be cut before any blank that a word follows, without changing tokens.

    ``content`` is the parsed JSON of a Hugging Face tokenizer. This holds for the pre-tokenizers of
    GPT-2 and BERT: no word extends over a blank, and the text before a blank does not influence how
    the next word is split. Added tokens may contain blanks; special ones do no harm, because they
    are not recognised in documents.
    """
    pre_tokenizer, model = content.get("pre_tokenizer") or {}, content["model"]
    splits_words = pre_tokenizer.get("type") == "BertPreTokenizer" or (
        pre_tokenizer.get("type") == "ByteLevel"
        and pre_tokenizer.get("use_regex", True)
        and not pre_tokenizer.get("add_prefix_space")
    )
    return (
        splits_words
        and all(kind in LOCAL_NORMALIZERS for kind in _kinds(content.get("normalizer")))
        and all(token["special"] for token in content.get("added_tokens", []))
        and model.get("type") in ("BPE", "WordPiece")
        and not model.get("dropout")
    )


def _kinds(normalizer: Mapping[str, Any] | None) -> list[str]:
    if normalizer is None:
        return []
    if normalizer["type"] == "Sequence":
        return [kind for member in normalizer["normalizers"] for kind in _kinds(member)]
    return [normalizer["type"]]
