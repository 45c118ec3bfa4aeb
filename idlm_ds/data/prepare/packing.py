"""Pack the tokens of documents into rows of one length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, final

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLayout:
    """Length of rows, and the special tokens in them."""

    length: int
    """Tokens per row."""

    bos: int
    eos: int
    pad: int

    framed: bool
    """Whether a row begins with BOS and, if its text is wrapped, ends with EOS."""

    ends: bool
    """Whether each document ends with EOS."""

    @property
    def piece(self) -> int:
        """Number of tokens of wrapped text in a row."""
        return self.length - 2 * self.framed


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """Tokens of several texts, concatenated."""

    tokens: Tokens
    lengths: npt.NDArray[np.int64]
    """Tokens of each text."""

    def select(self, mask: npt.NDArray[np.bool_]) -> "EncodedTexts":
        """Return the texts where ``mask``, of shape (number of texts,), is true."""
        return EncodedTexts(self.tokens[np.repeat(mask, self.lengths)], self.lengths[mask])


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows, and the number of documents that were cut or left out."""

    rows: Tokens
    """(N, length)"""

    spans: npt.NDArray[np.uint32] | None = None
    """(N, 2): first position of the loss and end of the text; None if the loss covers whole
    rows."""

    truncated: int = 0
    """Number of documents cut at the end of their row."""

    unanswered: int = 0
    """Number of documents left out because their prompt leaves no room for an answer."""


class Packer(Protocol):
    """Incremental packer of documents into rows."""

    def add(self, texts: EncodedTexts) -> PackedRows:
        """Add texts and return the rows they complete."""

    @property
    def carry(self) -> list[int]:
        """Tokens that wait for the next row, from which an equal packer can be built."""


@final
class WrapPacker:
    """Packer that concatenates documents and cuts them wherever a row is full.

    Tokens that do not fill a row wait for the next document, so the rows depend on the documents
    and their order only.
    """

    def __init__(self, layout: RowLayout, carry: Sequence[int] = ()) -> None:
        self._layout = layout
        self._carry: Tokens = np.asarray(carry, dtype=np.uint32)

    @property
    def carry(self) -> list[int]:
        """See ``Packer``."""
        return self._carry.tolist()

    def add(self, texts: EncodedTexts) -> PackedRows:
        """See ``Packer``."""
        layout, tokens = self._layout, texts.tokens
        # Put an end-of-text token after each document.
        if layout.ends:
            tokens = np.insert(tokens, np.cumsum(texts.lengths), layout.eos)
        # Cut the carried and the new tokens into pieces, and carry the remainder.
        stream = np.concatenate([self._carry.astype(tokens.dtype), tokens])
        count = len(stream) // layout.piece
        pieces = stream[: count * layout.piece].reshape(count, layout.piece)
        self._carry = stream[count * layout.piece :].copy()
        if not layout.framed:
            return PackedRows(pieces)
        # Surround each piece with begin and end of text.
        rows = np.empty((count, layout.length), tokens.dtype)
        rows[:, 0], rows[:, 1:-1], rows[:, -1] = layout.bos, pieces, layout.eos
        return PackedRows(rows)


@final
@dataclass(frozen=True, slots=True)
class PadPacker:
    """Packer that puts one document in a row, truncated or padded to its length."""

    layout: RowLayout
    prompted: bool
    """Whether the texts are pairs of a prompt and its answer."""

    carry: ClassVar[list[int]] = []

    def add(self, texts: EncodedTexts) -> PackedRows:
        """See ``Packer``."""
        layout = self.layout
        first = int(layout.framed)
        room = layout.length - first - layout.ends
        lengths, prompts = texts.lengths, np.zeros_like(texts.lengths)
        unanswered = 0
        # Join prompts and answers; drop pairs whose prompt fills the row.
        if self.prompted:
            fits = texts.lengths[::2] < room
            unanswered = int((~fits).sum())
            texts = texts.select(np.repeat(fits, 2))
            prompts, lengths = texts.lengths[::2], texts.lengths.reshape(-1, 2).sum(1)
        # Copy the tokens that fit, row by row, into rows of padding.
        kept = np.minimum(lengths, room)
        rows = np.full((len(lengths), layout.length), layout.pad, texts.tokens.dtype)
        if layout.framed:
            rows[:, 0] = layout.bos
        row, column = _coordinates(kept)
        starts = np.cumsum(lengths) - lengths
        rows[row, column + first] = texts.tokens[starts[row] + column]
        # The loss starts after the prompt and includes the end of text.
        stops = kept + first
        if layout.ends:
            rows[np.arange(len(rows)), stops] = layout.eos
            stops = stops + 1
        begins = prompts + first if self.prompted else prompts
        spans = np.stack([begins, stops], 1).astype(np.uint32)
        return PackedRows(rows, spans, int((lengths > room).sum()), unanswered)


def _coordinates(
    lengths: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return row and column of every token, for texts that take one row each."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return row, np.arange(len(row)) - starts
