"""Encode each distinct word once, for tokenizers whose tokens never span two words."""

import re
from collections.abc import Sequence

import numpy as np

from idlm_ds.data.prepare.packing import EncodedTexts
from idlm_ds.data.tokenizer_backends import Encoder

CACHE_LIMIT = 64 << 20
"""Size of the cache, in characters of words plus bytes of tokens, above which it is emptied."""

_BLANK_BEFORE_NO_WORD = re.compile(r" (?:\s|\Z)")
_BEFORE_WORD = re.compile(r"(?= \S)")


class WordCache:
    """Encoder that remembers the tokens of words, most of which occur many times in a corpus."""

    def __init__(self, encoder: Encoder, dtype: str) -> None:
        self._encoder = encoder
        self._dtype = dtype
        self._tokens: dict[str, bytes] = {}
        self._size = 0

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Encode texts; the result is the same as without the cache."""
        heads, tails = zip(*map(cut, texts), strict=True) if texts else ((), ())
        # Empty a full cache only between calls: this call needs all its words at once.
        if self._size > CACHE_LIMIT:
            self._tokens.clear()
            self._size = 0
        self._learn(list(set().union(*tails) - self._tokens.keys()))
        # A text is its head, which is encoded anew, and the cached tokens of its words.
        tokens_of = self._tokens.__getitem__
        encoded_heads = self._encode(heads)
        rows = [
            head + b"".join(map(tokens_of, tail))
            for head, tail in zip(encoded_heads, tails, strict=True)
        ]
        tokens = np.frombuffer(b"".join(rows), self._dtype)
        return EncodedTexts(tokens, np.fromiter(map(len, rows), np.int64) // tokens.itemsize)

    def _learn(self, words: list[str]) -> None:
        for word, tokens in zip(words, self._encode([f" {w}" for w in words]), strict=True):
            self._tokens[word] = tokens
            self._size += len(word) + len(tokens)

    def _encode(self, texts: Sequence[str]) -> list[bytes]:
        return [np.array(ids, self._dtype).tobytes() for ids in self._encoder.encode(texts)]


def cut(text: str) -> tuple[str, list[str]]:
    """Split a text before each blank that a word follows.

    Returns:
        The text before the first such blank, and the words without their blanks.
    """
    if _BLANK_BEFORE_NO_WORD.search(text):
        head, *words = _BEFORE_WORD.split(text)
        return head, [word[1:] for word in words]
    # Without double or trailing blanks, the much faster str.split gives the same.
    head, *words = text.split(" ")
    return head, words
