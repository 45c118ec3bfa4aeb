"""Tokens of documents into rows of one length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How rows are made."""

    length: int
    """Tokens of a row."""

    bos: int
    eos: int
    pad: int

    framed: bool
    """Whether a row begins with BOS; a row of wrapped text also ends with EOS then."""

    ends: bool
    """Whether a document ends with EOS."""

    @property
    def piece(self) -> int:
        """Tokens of wrapped text in a row."""
        return self.length - 2 * self.framed


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of some texts, end to end."""

    tokens: Tokens
    lengths: npt.NDArray[np.int64]

    def pick(self, which: npt.NDArray[np.bool_]) -> "Encoded":
        """Some of the texts."""
        return Encoded(self.tokens[np.repeat(which, self.lengths)], self.lengths[which])


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows, and what was lost on the way."""

    rows: Tokens
    """(N, length)"""

    spans: npt.NDArray[np.uint32] | None = None
    """(N, 2): the loss is about the positions from the first to before the second, which is also
    where the text ends; None where that is the whole row."""

    truncated: int = 0
    """Documents cut at the end of their row."""

    unanswered: int = 0
    """Documents left out because their prompt leaves no room for an answer."""


class Packer(Protocol):
    """Makes rows of documents as they come."""

    def add(self, texts: Encoded) -> Packed:
        """Rows that are full with these texts."""
        ...

    @property
    def carry(self) -> list[int]:
        """Tokens waiting for the next row; with them a packer can be made again."""
        ...


@final
class Wrapping:
    """Documents end to end, cut wherever a row is full.

    What does not fill a row waits for the next document, so the rows depend on nothing but the
    documents and their order.
    """

    def __init__(self, layout: Layout, carry: Sequence[int] = ()) -> None:
        self._layout = layout
        self._carry: Tokens = np.asarray(carry, dtype=np.uint32)

    @property
    def carry(self) -> list[int]:
        """See ``Packer``."""
        return self._carry.tolist()

    def add(self, texts: Encoded) -> Packed:
        """See ``Packer``."""
        layout, tokens = self._layout, texts.tokens
        if layout.ends:
            tokens = np.insert(tokens, np.cumsum(texts.lengths), layout.eos)
        stream = np.concatenate([self._carry.astype(tokens.dtype), tokens])
        count = len(stream) // layout.piece
        pieces = stream[: count * layout.piece].reshape(count, layout.piece)
        self._carry = stream[count * layout.piece :].copy()
        if not layout.framed:
            return Packed(pieces)
        rows = np.empty((count, layout.length), tokens.dtype)
        rows[:, 0], rows[:, 1:-1], rows[:, -1] = layout.bos, pieces, layout.eos
        return Packed(rows)


@final
class Padding:
    """A document a row, cut or filled up to its length."""

    carry: list[int] = []

    def __init__(self, layout: Layout, *, prompted: bool) -> None:
        """See class.

        Args:
            layout: How rows are made.
            prompted: Whether texts come in pairs, a prompt and its answer.
        """
        self._layout = layout
        self._prompted = prompted

    def add(self, texts: Encoded) -> Packed:
        """See ``Packer``."""
        layout = self._layout
        first = int(layout.framed)
        room = layout.length - first - layout.ends
        lengths, prompts = texts.lengths, np.zeros_like(texts.lengths)
        unanswered = 0
        if self._prompted:
            fits = texts.lengths[::2] < room
            unanswered = int((~fits).sum())
            texts = texts.pick(np.repeat(fits, 2))
            prompts, lengths = texts.lengths[::2], texts.lengths.reshape(-1, 2).sum(1)
        kept = np.minimum(lengths, room)
        rows = np.full((len(lengths), layout.length), layout.pad, texts.tokens.dtype)
        if layout.framed:
            rows[:, 0] = layout.bos
        row, column = _places(kept)
        starts = np.cumsum(lengths) - lengths
        rows[row, column + first] = texts.tokens[starts[row] + column]
        stops = kept + first
        if layout.ends:
            rows[np.arange(len(rows)), stops] = layout.eos
            stops = stops + 1
        begins = prompts + first if self._prompted else prompts
        spans = np.stack([begins, stops], 1).astype(np.uint32)
        return Packed(rows, spans, int((lengths > room).sum()), unanswered)


def _places(lengths: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row and column of every token of texts that are laid one a row."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return row, np.arange(len(row)) - starts
