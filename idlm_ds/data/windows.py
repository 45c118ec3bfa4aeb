"""A stream of tokens cut into windows, in an order anybody can recompute."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from idlm_ds.data.corpus import Document
from idlm_ds.errors import UserError
from idlm_ds.noise import derive_seed


class Encoder(Protocol):
    """Text to token ids, many documents at once."""

    eos_id: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        ...


def pack(documents: Sequence[Document], encoder: Encoder) -> npt.NDArray[np.int32]:
    """Tokenize documents and lay them end to end, each followed by the end-of-text token."""
    pieces = encoder.encode([d.text for d in documents])
    return np.concatenate([np.asarray([*p, encoder.eos_id], dtype=np.int32) for p in pieces])


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of ``length`` tokens, shuffled anew each epoch.

    Every epoch cuts the stream at another offset, so windows do not repeat. Sample ``i`` is a
    function of ``i`` and the seed alone: the position of a run in its data is one integer.
    """

    stream: npt.NDArray[np.int32]
    length: int
    seed: int

    def __post_init__(self) -> None:
        if self.per_epoch < 1:
            raise UserError(
                f"data.length: {self.length} needs {2 * self.length} tokens of text, "
                f"the corpus has {len(self.stream)}"
            )

    @property
    def per_epoch(self) -> int:
        """Windows in one pass over the stream."""
        return len(self.stream) // self.length - 1

    @property
    def fingerprint(self) -> str:
        """Short hash of the tokens, to notice that a resumed run reads other data."""
        return hashlib.sha256(self.stream.tobytes()).hexdigest()[:16]

    def take(self, samples: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the windows with these global indices, shape (len(samples), length)."""
        rows = np.empty((len(samples), self.length), dtype=np.int64)
        for row, sample in zip(rows, samples, strict=True):
            epoch, index = divmod(sample, self.per_epoch)
            offset, order = _epoch_order(self.seed, epoch, self.per_epoch, self.length)
            start = offset + int(order[index]) * self.length
            row[:] = self.stream[start : start + self.length]
        return rows

    def scored(self, samples: Sequence[int]) -> None:
        """See ``Rows``."""

    def holds(self, token: int) -> bool:
        """See ``Rows``."""
        return bool((self.stream == token).any())


@lru_cache(maxsize=4)
def _epoch_order(
    seed: int, epoch: int, count: int, length: int
) -> tuple[int, npt.NDArray[np.int64]]:
    """Offset and permutation of one epoch."""
    generator = np.random.Generator(np.random.Philox(derive_seed(seed, "epoch", epoch)))
    return int(generator.integers(length)), generator.permutation(count)


def in_order(stream: npt.NDArray[np.int32], length: int, count: int) -> npt.NDArray[np.int64]:
    """Cut ``count`` windows spread evenly over a stream, for held-out figures.

    Raises:
        UserError: The stream is too short.
    """
    available = len(stream) // length
    if available < count:
        raise UserError(
            f"data.heldout_every: {count} held-out windows of {length} tokens were asked for; "
            f"there are {available}"
        )
    starts = (np.arange(count) * available // count) * length
    return np.stack([stream[s : s + length] for s in starts]).astype(np.int64)
