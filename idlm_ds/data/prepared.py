"""Prepared data as a source of training rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from idlm_ds.data.index import (
    HELDOUT,
    TRAIN,
    Index,
    Shard,
    check_sizes,
    read_index,
)
from idlm_ds.data.permutation import permute
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from idlm_ds.noise import derive_seed


@final
class PreparedRows:
    """Rows on disk, in another order each epoch.

    Sample ``i`` is a function of ``i`` and the seed alone, and no order is ever written down: the
    position of a run in its data is one integer.
    """

    def __init__(
        self,
        shards: Sequence[npt.NDArray[np.unsignedinteger]],
        seed: int,
        *,
        spans: Sequence[npt.NDArray[np.uint32]] = (),
        counts: npt.NDArray[np.int64],
        fingerprint: str,
    ) -> None:
        """See class.

        Args:
            shards: (N, length) arrays, on disk or not; together at least one row.
            seed: Names the orders.
            spans: For each shard the (N, 2) positions between which a row has text that is to be
                learned; none where that is the whole row.
            counts: How often each token occurs.
            fingerprint: Short hash of the tokens.
        """
        self._shards = shards
        self._starts = np.cumsum([0, *map(len, shards)])
        self._seed = seed
        self._spans = spans
        self._counts = counts
        self.fingerprint = fingerprint
        self.length = int(shards[0].shape[1])

    @property
    def per_epoch(self) -> int:
        """Rows in one pass over the data."""
        return int(self._starts[-1])

    def holds(self, token: int) -> bool:
        """See ``Rows``."""
        return token < len(self._counts) and bool(self._counts[token])

    def order(self, samples: Sequence[int]) -> npt.NDArray[np.int64]:
        """Which row each sample is."""
        epochs, index = np.divmod(np.asarray(samples, dtype=np.int64), self.per_epoch)
        rows = np.empty_like(index)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            seed = derive_seed(self._seed, "epoch", int(epoch))
            rows[here] = permute(index[here], self.per_epoch, seed)
        return rows

    def take(self, samples: Sequence[int]) -> npt.NDArray[np.int64]:
        """See ``Rows``."""
        return self.rows(self.order(samples))

    def scored(self, samples: Sequence[int]) -> npt.NDArray[np.bool_] | None:
        """See ``Rows``."""
        if not self._spans:
            return None
        first, stop = self._gather(self._spans, self.order(samples)).T[:, :, None]
        position = np.arange(self.length)
        return (first <= position) & (position < stop)

    def rows(self, which: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Rows by their place on disk."""
        return self._gather(self._shards, which)

    def _gather(
        self, shards: Sequence[npt.NDArray[np.unsignedinteger]], which: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        taken = np.empty((len(which), shards[0].shape[1]), dtype=np.int64)
        owners = np.searchsorted(self._starts, which, side="right") - 1
        for owner in np.unique(owners):
            here = owners == owner
            taken[here] = shards[owner][which[here] - self._starts[owner]]
        return taken


def open_prepared(folder: Path, tokenizer: Tokenizer, key: str, *, length: int) -> Index:
    """Read the index of prepared data and hold it against a run.

    Raises:
        UserError: It is unfinished or damaged, or was made for other lengths, by another
            tokenizer, or for a loss over a part of each row.
    """
    index = read_index(folder, key)
    if index.words.sha256 != tokenizer.fingerprint:
        raise UserError(
            f"{key}: {folder} was prepared by tokenizer {index.words.sha256[:12]}, data.tokenizer "
            f"{tokenizer.folder} is {tokenizer.fingerprint[:12]}"
        )
    if index.length != length:
        raise UserError(f"data.length: {length}, but {folder} has rows of {index.length}")
    check_sizes(index, folder, key)
    return index


def training_rows(index: Index, folder: Path, *, seed: int) -> PreparedRows:
    """The training rows of prepared data.

    Raises:
        UserError: There is none.
    """
    if not index.rows(TRAIN):
        raise UserError(f"data.corpus: {folder} has not one row of training text")
    shards = [token_array(index, folder, shard) for shard in index.splits[TRAIN]]
    spans = [s for s in (span_array(folder, s) for s in index.splits[TRAIN]) if s is not None]
    counts = np.fromfile(folder / index.counts.file, dtype="<i8")
    return PreparedRows(shards, seed, spans=spans, counts=counts, fingerprint=index.fingerprint)


def heldout_rows(index: Index, folder: Path, count: int) -> npt.NDArray[np.int64]:
    """Take ``count`` rows spread evenly over the held-out ones.

    Raises:
        UserError: There are fewer.
    """
    available = index.rows(HELDOUT)
    if available < count:
        raise UserError(
            f"data.corpus: {count} held-out rows were asked for; {folder} has {available}"
        )
    shards = [token_array(index, folder, shard) for shard in index.splits[HELDOUT]]
    every = PreparedRows(shards, 0, counts=np.empty(0, np.int64), fingerprint="")
    return every.rows(np.arange(count) * available // count)


def token_array(index: Index, folder: Path, shard: Shard) -> npt.NDArray[np.unsignedinteger]:
    """The rows of a shard, read from disk as they are used."""
    path = folder / shard.tokens.file
    return np.memmap(path, dtype=index.dtype, mode="r", shape=(shard.rows, index.length))


def span_array(folder: Path, shard: Shard) -> npt.NDArray[np.uint32] | None:
    """Where the text of a shard's rows lies; None if everywhere."""
    if shard.spans is None:
        return None
    return np.memmap(folder / shard.spans.file, dtype="<u4", mode="r", shape=(shard.rows, 2))
