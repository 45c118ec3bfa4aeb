"""Training rows streamed from a data set of the hub, without preparation."""

import hashlib
import json
from collections.abc import Sequence
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
from datasets.exceptions import DatasetsError

from idlm_ds.data.prepare.documents import KeptDocument, Reading, from_mapping
from idlm_ds.data.prepare.encoding import TextEncoder
from idlm_ds.data.prepare.hub import first_line
from idlm_ds.data.prepare.packing import RowLayout, WrapPacker
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from idlm_ds.files import write_atomic

DOCUMENTS_AT_ONCE = 64
"""Documents that are read and encoded at a time."""

ROWS_PER_BOOKMARK = 4096
"""Minimum number of rows between two bookmarks."""


@final
class StreamRows:
    """Rows in the order of the documents, over and over; nothing is shuffled.

    Every rank reads the whole stream and keeps its own rows, so sample ``i`` is the same row on any
    rank and in any run. To resume far into the stream, a run starts at a bookmark, the state of the
    data set that an earlier run saved on this machine; without one it reads from the beginning.
    """

    def __init__(
        self,
        documents: Any,
        tokenizer: Tokenizer,
        *,
        detokenizer: str | None = None,
        length: int,
        name: str,
        heldout: int,
        bookmarks: Path,
    ) -> None:
        """See class.

        Args:
            documents: A ``datasets.IterableDataset`` with a column ``text``.
            tokenizer: Tokenizer of the texts.
            detokenizer: Name of a function in ``DETOKENIZERS`` that is applied to a text first.
            length: Tokens per row.
            name: Name of the data set, with its commit if known.
            heldout: Number of rows at the beginning that are held out.
            bookmarks: Folder of the file with bookmarks.

        Raises:
            UserError: The data set has no text.
        """
        self._documents = documents
        self._tokenizer = tokenizer
        self._encoder = TextEncoder(tokenizer.encoder(), "<u4", detokenizer)
        self._skipped = heldout
        self.length = length
        # Bookmarks are valid for the same data set, tokenizer and length only.
        identity = (name, tokenizer.fingerprint, length)
        self._identity = hashlib.sha256(repr(identity).encode()).hexdigest()
        self.fingerprint = hashlib.sha256(f"{self._identity}/{heldout}".encode()).hexdigest()[:16]
        self._file = bookmarks / f"{self._identity[:16]}.json"
        self._start = deepcopy(documents.state_dict())
        self._bookmarks = self._read_bookmarks()
        self._go_to(self._bookmarks["0"])
        self.heldout = self._rows(0, heldout)

    def take(self, samples: Sequence[int]) -> npt.NDArray[np.int64]:
        """See ``Rows``; samples must be consecutive."""
        return self._rows(samples[0] + self._skipped, samples[-1] + 1 + self._skipped)

    def scored(self, samples: Sequence[int]) -> None:
        """See ``Rows``; the loss covers all positions."""

    def holds(self, token: int) -> bool:
        """See ``Rows``; any token may occur except the mask, which no text becomes."""
        return token < len(self._tokenizer) and token != self._tokenizer.mask_id

    def _rows(self, first: int, stop: int) -> npt.NDArray[np.int64]:
        # Jump to a bookmark if the rows lie behind, or if it is ahead of what was read.
        bookmark = max(int(row) for row in self._bookmarks if int(row) <= first)
        if first < self._base or bookmark > self._base + len(self._buffer):
            self._go_to(self._bookmarks[str(bookmark)])
        while self._base + len(self._buffer) < stop:
            self._read_on(first)
        return self._buffer[first - self._base : stop - self._base].astype(np.int64)

    def _go_to(self, bookmark: dict[str, Any]) -> None:
        self._documents.load_state_dict(deepcopy(bookmark["documents"]))
        self._stream = iter(self._documents)
        eos, length = self._tokenizer.eos_id, self.length
        layout = RowLayout(length=length, bos=eos, eos=eos, pad=eos, framed=False, ends=True)
        self._packer = WrapPacker(layout, bookmark["carry"])
        self._base = bookmark["row"]
        self._buffer = np.empty((0, self.length), np.uint32)
        self._has_no_text = bookmark["row"] == 0

    def _read_on(self, first: int) -> None:
        """Read some documents, and drop buffered rows before ``first``."""
        try:
            rows = list(islice(self._stream, DOCUMENTS_AT_ONCE))
        except (OSError, ValueError, DatasetsError) as error:
            raise UserError(f"data.corpus: the stream broke off: {first_line(error)}") from error
        records = (from_mapping(row, Reading()) for row in rows)
        texts = [record.texts[0] for record in records if isinstance(record, KeptDocument)]
        # Pack them, and forget rows that nobody will ask for again.
        if texts:
            self._has_no_text = False
            packed = self._packer.add(self._encoder.encode(texts)).rows
            num_dropped = max(0, min(first - self._base, len(self._buffer)))
            self._base += num_dropped
            self._buffer = np.concatenate([self._buffer[num_dropped:], packed])
        # At the end of the data set, start over.
        if not rows:
            self._restart()
        self._save_bookmark()

    def _restart(self) -> None:
        if self._has_no_text:
            raise UserError("data.corpus: the data set has no document with a 'text'")
        self._documents.load_state_dict(deepcopy(self._start))
        self._stream = iter(self._documents)

    def _save_bookmark(self) -> None:
        row = self._base + len(self._buffer)
        if row < max(map(int, self._bookmarks)) + ROWS_PER_BOOKMARK:
            return
        state = deepcopy(self._documents.state_dict())
        self._bookmarks[str(row)] = {"row": row, "carry": self._packer.carry, "documents": state}
        write_atomic(self._file, json.dumps(self._bookmarks).encode())

    def _read_bookmarks(self) -> dict[str, dict[str, Any]]:
        beginning = {"row": 0, "carry": [], "documents": self._start}
        try:
            saved = json.loads(self._file.read_text("utf-8"))
        except (OSError, ValueError):
            saved = None
        return {**(saved if isinstance(saved, dict) else {}), "0": beginning}
