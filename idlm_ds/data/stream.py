"""Rows straight out of a data set of the hub, for a first try without preparation."""

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

from idlm_ds.data.prepare.documents import Found, Reading, from_mapping
from idlm_ds.data.prepare.encoding import TextEncoder
from idlm_ds.data.prepare.hub import first_line
from idlm_ds.data.prepare.packing import Layout, Wrapping
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from idlm_ds.files import write_atomic

TOGETHER = 64
"""Documents encoded at once."""

EVERY = 4096
"""Rows from one place that is left behind to the next."""


@final
class StreamRows:
    """Rows in the order of the documents, over and over; nothing is shuffled.

    Every rank reads the whole stream and keeps its own rows, so sample ``i`` is the same row on any
    rank and in any run. A run that goes on far into the stream is taken there by the data set's
    own state where that was left behind on this machine, else by reading up to it.
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
        places: Path,
    ) -> None:
        """See class.

        Args:
            documents: A ``datasets.IterableDataset`` with a column ``text``.
            tokenizer: Makes tokens of it.
            detokenizer: What is done to a text first, by its name.
            length: Tokens of a row.
            name: What the data set is called, with its commit where that is known.
            heldout: Rows at the beginning that are not for training.
            places: A folder in which places are left behind.

        Raises:
            UserError: The data set has no text.
        """
        self._documents = documents
        self._tokenizer = tokenizer
        self._encoder = TextEncoder(tokenizer.encoder(), "<u4", detokenizer)
        self._skipped = heldout
        self.length = length
        identity = (name, tokenizer.fingerprint, length)
        self._identity = hashlib.sha256(repr(identity).encode()).hexdigest()
        self.fingerprint = hashlib.sha256(f"{self._identity}/{heldout}".encode()).hexdigest()[:16]
        self._file = places / f"{self._identity[:16]}.json"
        self._start = deepcopy(documents.state_dict())
        self._places = self._read_places()
        self._go_to(self._places["0"])
        self.heldout = self._rows(0, heldout)

    def take(self, samples: Sequence[int]) -> npt.NDArray[np.int64]:
        """See ``Rows``; samples must be consecutive."""
        return self._rows(samples[0] + self._skipped, samples[-1] + 1 + self._skipped)

    def scored(self, samples: Sequence[int]) -> None:
        """See ``Rows``."""

    def holds(self, token: int) -> bool:
        """See ``Rows``; what is a special token no text becomes."""
        return token < len(self._tokenizer) and token != self._tokenizer.mask_id

    def _rows(self, first: int, stop: int) -> npt.NDArray[np.int64]:
        known = max(int(row) for row in self._places if int(row) <= first)
        if first < self._base or known > self._base + len(self._held):
            self._go_to(self._places[str(known)])
        while self._base + len(self._held) < stop:
            self._read_on(first)
        return self._held[first - self._base : stop - self._base].astype(np.int64)

    def _go_to(self, place: dict[str, Any]) -> None:
        self._documents.load_state_dict(deepcopy(place["documents"]))
        self._stream = iter(self._documents)
        tokenizer = self._tokenizer
        layout = Layout(
            length=self.length,
            bos=tokenizer.bos_id,
            eos=tokenizer.eos_id,
            pad=tokenizer.eos_id,
            framed=False,
            ends=True,
        )
        self._packer = Wrapping(layout, place["carry"])
        self._base, self._held = place["row"], np.empty((0, self.length), np.uint32)
        self._is_fruitless = place["row"] == 0

    def _read_on(self, first: int) -> None:
        """Read some documents, and forget the rows before ``first``."""
        try:
            rows = list(islice(self._stream, TOGETHER))
        except (OSError, ValueError, DatasetsError) as error:
            raise UserError(f"data.corpus: the stream broke off: {first_line(error)}") from error
        records = (from_mapping(row, Reading()) for row in rows)
        texts = [record.texts[0] for record in records if isinstance(record, Found)]
        if texts:
            self._is_fruitless = False
            packed = self._packer.add(self._encoder.encode(texts)).rows
            keep = max(0, min(first - self._base, len(self._held)))
            self._base += keep
            self._held = np.concatenate([self._held[keep:], packed])
        if not rows:
            self._begin_again()
        self._leave_place()

    def _begin_again(self) -> None:
        if self._is_fruitless:
            raise UserError("data.corpus: the data set has no document with a 'text'")
        self._documents.load_state_dict(deepcopy(self._start))
        self._stream = iter(self._documents)

    def _leave_place(self) -> None:
        row = self._base + len(self._held)
        if row < max(map(int, self._places)) + EVERY:
            return
        state = deepcopy(self._documents.state_dict())
        self._places[str(row)] = {"row": row, "carry": self._packer.carry, "documents": state}
        write_atomic(self._file, json.dumps(self._places).encode())

    def _read_places(self) -> dict[str, dict[str, Any]]:
        beginning = {"row": 0, "carry": [], "documents": self._start}
        try:
            found = json.loads(self._file.read_text("utf-8"))
        except (OSError, ValueError):
            found = None
        return {**(found if isinstance(found, dict) else {}), "0": beginning}
