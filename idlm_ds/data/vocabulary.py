"""The two kinds of tokenizer there are: Hugging Face's and sentencepiece's."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import sentencepiece
import tokenizers

MASK_NAMES = ("[MASK]", "<mask>", "<|mdm_mask|>", "<|mask|>")
"""What a mask is called by tokenizers that do not say which token it is."""


LOCAL = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"}
"""Normalizers that never look across a blank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Specials:
    """Ids of the tokens that are no text; None where there is none."""

    bos: int | None
    eos: int | None
    pad: int | None
    mask: int | None


class Encoder(Protocol):
    """The part of a tokenizer that a worker process needs; it can be sent to one."""

    @property
    def is_wordwise(self) -> bool:
        """Whether text can be cut before any blank that a word follows, and its tokens with it."""
        ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        ...


class Vocabulary(Protocol):
    """What a kind of tokenizer offers to ``Tokenizer``."""

    @property
    def specials(self) -> Specials:
        """Its special tokens."""
        ...

    @property
    def frame(self) -> tuple[int, int] | None:
        """Ids that open and close a row of wrapped text, where they are not BOS and EOS."""
        ...

    def __len__(self) -> int: ...

    def table(self) -> Iterator[tuple[int, str]]:
        """Every id with its token."""
        ...

    def encoder(self, *, spells_specials: bool) -> Encoder:
        """What turns text into ids.

        Args:
            spells_specials: Whether the name of a special token in a text is text too; else it is
                that token.
        """
        ...

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Text of each row, special tokens kept."""
        ...

    def save(self, folder: Path) -> None:
        """Write the files it can be opened from again."""
        ...


class FastEncoder:
    """The Rust tokenizer alone."""

    def __init__(self, content: str, spells_specials: bool) -> None:
        """See class.

        Args:
            content: Its JSON.
            spells_specials: See ``Vocabulary.encoder``.
        """
        self._given = content, spells_specials
        self._backend = tokenizers.Tokenizer.from_str(content)
        self._backend.encode_special_tokens = spells_specials
        self.is_wordwise = spells_specials and is_wordwise(json.loads(content))

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild it in the other process: the Rust object forgets its setting on the way."""
        return type(self), self._given

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See ``Encoder``."""
        found = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [e.ids for e in found]


class FastVocabulary:
    """A tokenizer of Hugging Face's."""

    def __init__(self, tokenizer: Any) -> None:
        """See class.

        Args:
            tokenizer: A ``PreTrainedTokenizerFast``. What its file says of truncation and padding
                is for somebody else's batches.
        """
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()

    def __len__(self) -> int:
        return len(self._tokenizer)

    @property
    def specials(self) -> Specials:
        """See ``Vocabulary``; BERT's [CLS] and [SEP] serve as begin and end."""
        told = self._tokenizer
        named = (self._backend.token_to_id(name) for name in MASK_NAMES)
        mask = told.mask_token_id
        return Specials(
            bos=_first(told.bos_token_id, told.cls_token_id),
            eos=_first(told.eos_token_id, told.sep_token_id),
            pad=told.pad_token_id,
            mask=_first(mask, *named),
        )

    @property
    def frame(self) -> tuple[int, int] | None:
        """See ``Vocabulary``; public models over BERT's words know [CLS] at both ends."""
        told = self._tokenizer
        if told.eos_token_id is None and told.cls_token_id is not None:
            return told.cls_token_id, told.cls_token_id
        return None

    def table(self) -> Iterator[tuple[int, str]]:
        """See ``Vocabulary``."""
        yield from sorted((i, token) for token, i in self._tokenizer.get_vocab().items())

    def encoder(self, *, spells_specials: bool) -> Encoder:
        """See ``Vocabulary``."""
        return FastEncoder(self._backend.to_str(), spells_specials)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """See ``Vocabulary``."""
        return self._tokenizer.batch_decode(rows, skip_special_tokens=False)

    def save(self, folder: Path) -> None:
        """See ``Vocabulary``."""
        self._tokenizer.save_pretrained(folder)


@dataclass(frozen=True, slots=True)
class PieceEncoder:
    """A sentencepiece model alone; it never reads a special token out of text."""

    model: Any
    is_wordwise: ClassVar[bool] = False

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See ``Encoder``."""
        return self.model.encode(list(texts), out_type=int, num_threads=1)


class PieceVocabulary:
    """A sentencepiece model."""

    FILE = "tokenizer.model"
    frame = None

    def __init__(self, content: bytes) -> None:
        """See class.

        Raises:
            RuntimeError: The bytes are no model.
        """
        self._content = content
        self._model = sentencepiece.SentencePieceProcessor()
        self._model.load_from_serialized_proto(content)

    def __len__(self) -> int:
        return self._model.get_piece_size()

    @property
    def specials(self) -> Specials:
        """See ``Vocabulary``."""
        model = self._model
        named = [i for name in MASK_NAMES if (i := model.piece_to_id(name)) != model.unk_id()]
        ids = [i if i >= 0 else None for i in (model.bos_id(), model.eos_id(), model.pad_id())]
        return Specials(bos=ids[0], eos=ids[1], pad=ids[2], mask=_first(*named))

    def table(self) -> Iterator[tuple[int, str]]:
        """See ``Vocabulary``."""
        for i in range(len(self)):
            yield i, self._model.id_to_piece(i)

    def encoder(self, *, spells_specials: bool) -> Encoder:
        """See ``Vocabulary``; names of special tokens are always text."""
        del spells_specials
        return PieceEncoder(self._model)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """See ``Vocabulary``."""
        return [self._decode(row) for row in rows]

    def _decode(self, row: Sequence[int]) -> str:
        parts: list[str] = []
        words: list[int] = []
        for token in map(int, row):
            if self._model.is_control(token):
                parts += [self._model.decode(words), self._model.id_to_piece(token)]
                words = []
            else:
                words.append(token)
        return "".join([*parts, self._model.decode(words)])

    def save(self, folder: Path) -> None:
        """See ``Vocabulary``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.FILE).write_bytes(self._content)


def _first(*ids: int | None) -> int | None:
    return next((i for i in ids if i is not None), None)


def is_wordwise(tokenizer: Mapping[str, Any]) -> bool:
    """Whether text can be cut before any blank that a word follows, and its tokens with it.

    So it is with GPT-2's and BERT's ways of finding words: no word goes on over a blank, and what
    stands before a blank does not decide what the next word is. Tokens added later could hold
    blanks, but for special ones, which are not looked for in documents.

    Args:
        tokenizer: A tokenizer of Hugging Face's, as its file has it.
    """
    words, model = tokenizer.get("pre_tokenizer") or {}, tokenizer["model"]
    finds_words = words.get("type") == "BertPreTokenizer" or (
        words.get("type") == "ByteLevel"
        and words.get("use_regex", True)
        and not words.get("add_prefix_space")
    )
    return (
        finds_words
        and all(kind in LOCAL for kind in _kinds(tokenizer.get("normalizer")))
        and all(token["special"] for token in tokenizer.get("added_tokens", []))
        and model.get("type") in ("BPE", "WordPiece")
        and not model.get("dropout")
    )


def _kinds(normalizer: Mapping[str, Any] | None) -> list[str]:
    if normalizer is None:
        return []
    if normalizer["type"] == "Sequence":
        return [kind for member in normalizer["normalizers"] for kind in _kinds(member)]
    return [normalizer["type"]]
