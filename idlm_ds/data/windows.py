"""Windows of a token stream in memory, in a reproducible random order."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from idlm_ds.data.corpus import Document
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from idlm_ds.noise import derive_seed


def pack(documents: Sequence[Document], tokenizer: Tokenizer) -> npt.NDArray[np.int32]:
    """Tokenize documents and concatenate them, each followed by the end-of-text token."""
    texts = tokenizer.encode([d.text for d in documents])
    eos_id = tokenizer.eos_id
    return np.concatenate([np.asarray([*ids, eos_id], dtype=np.int32) for ids in texts])


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of ``length`` tokens, shuffled anew each epoch.

    Every epoch cuts the stream at another offset, so windows do not repeat. Sample ``i`` depends
    on ``i`` and the seed only, so the state of a run in its data is one integer.
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
        """Number of windows in one pass over the stream."""
        return len(self.stream) // self.length - 1

    @property
    def fingerprint(self) -> str:
        """See ``Rows``."""
        return hashlib.sha256(self.stream.tobytes()).hexdigest()[:16]

    def take(self, samples: Sequence[int]) -> npt.NDArray[np.int64]:
        """See ``Rows``."""
        rows = np.empty((len(samples), self.length), dtype=np.int64)
        # Windows of an epoch begin at its random offset and come in its random order.
        for row, sample in zip(rows, samples, strict=True):
            epoch, index = divmod(sample, self.per_epoch)
            offset, order = _epoch_order(self.seed, epoch, self.per_epoch, self.length)
            start = offset + int(order[index]) * self.length
            row[:] = self.stream[start : start + self.length]
        return rows

    def scored(self, samples: Sequence[int]) -> None:
        """See ``Rows``; the loss covers all positions."""

    def holds(self, token: int) -> bool:
        """See ``Rows``."""
        return bool((self.stream == token).any())


@lru_cache(maxsize=4)
def _epoch_order(
    seed: int, epoch: int, count: int, length: int
) -> tuple[int, npt.NDArray[np.int64]]:
    """Draw the offset and the order of windows of one epoch."""
    generator = np.random.Generator(np.random.Philox(derive_seed(seed, "epoch", epoch)))
    return int(generator.integers(length)), generator.permutation(count)


def in_order(stream: npt.NDArray[np.int32], length: int, count: int) -> npt.NDArray[np.int64]:
    """Cut ``count`` windows at even distances from a stream, for held-out figures.

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
