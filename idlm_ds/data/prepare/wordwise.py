"""Encode every word once, where words do not touch each other's tokens."""

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from idlm_ds.data.prepare.packing import Encoded

REMEMBERED = 64 << 20
"""Characters and bytes of words and their tokens that are kept."""

_BLANK_BEFORE_NO_WORD = re.compile(r" (?:\s|\Z)")
_BEFORE_WORD = re.compile(r"(?= \S)")


class Words(Protocol):
    """What encodes words."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        ...


class Wordwise:
    """Remembers the tokens of words, which in text come again and again."""

    def __init__(self, words: Words, dtype: str) -> None:
        self._words = words
        self._dtype = dtype
        self._known: dict[str, bytes] = {}
        self._held = 0

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Tokens of texts, the same as without remembering anything."""
        heads, tails = zip(*map(cut, texts), strict=True) if texts else ((), ())
        if self._held > REMEMBERED:
            self._known.clear()
            self._held = 0
        self._learn(list(set().union(*tails) - self._known.keys()))
        known = self._known.__getitem__
        begun = self._bytes(heads)
        whole = [head + b"".join(map(known, tail)) for head, tail in zip(begun, tails, strict=True)]
        tokens = np.frombuffer(b"".join(whole), self._dtype)
        return Encoded(tokens, np.fromiter(map(len, whole), np.int64) // tokens.itemsize)

    def _learn(self, words: list[str]) -> None:
        for word, tokens in zip(words, self._bytes([f" {w}" for w in words]), strict=True):
            self._known[word] = tokens
            self._held += len(word) + len(tokens)

    def _bytes(self, texts: Sequence[str]) -> list[bytes]:
        return [np.array(ids, self._dtype).tobytes() for ids in self._words.encode(texts)]


def cut(text: str) -> tuple[str, list[str]]:
    """What comes before the first blank that a word follows, and the words without their blanks."""
    if _BLANK_BEFORE_NO_WORD.search(text):
        head, *words = _BEFORE_WORD.split(text)
        return head, [word[1:] for word in words]
    head, *words = text.split(" ")
    return head, words
