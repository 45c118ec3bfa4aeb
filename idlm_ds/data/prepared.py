"""Training and held-out rows of prepared data, memory-mapped."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from idlm_ds.data.index import HELDOUT, TRAIN, Index, Shard, check_sizes, read_index
from idlm_ds.data.permutation import permute
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError
from idlm_ds.noise import derive_seed


@final
@dataclass
class PreparedRows:
    """Rows of shards, in another order each epoch.

    Sample ``i`` depends on ``i`` and the seed only and no order is stored, so the state of a run
    in its data is one integer.
    """

    shards: Sequence[npt.NDArray[np.unsignedinteger]]
    """Arrays of shape (N, length), in memory or mapped; together at least one row."""

    seed: int
    """Seed of the orders."""

    _: KW_ONLY
    spans: Sequence[npt.NDArray[np.uint32]] = ()
    """For each shard, (N, 2) first and end positions of the loss; empty for whole rows."""

    counts: npt.NDArray[np.int64]
    """Number of occurrences of each token."""

    fingerprint: str
    """Short hash of the tokens."""

    def __post_init__(self) -> None:
        self.length = int(self.shards[0].shape[1])
        self._starts = np.cumsum([0, *map(len, self.shards)])

    @property
    def per_epoch(self) -> int:
        """Number of rows in one pass over the data."""
        return int(self._starts[-1])

    def holds(self, token: int) -> bool:
        """See ``Rows``."""
        return token < len(self.counts) and bool(self.counts[token])

    def order(self, samples: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the row number of each sample."""
        # Samples of one call may lie in two epochs, whose orders differ.
        epochs, index = np.divmod(np.asarray(samples, dtype=np.int64), self.per_epoch)
        rows = np.empty_like(index)
        for epoch in np.unique(epochs):
            in_epoch = epochs == epoch
            seed = derive_seed(self.seed, "epoch", int(epoch))
            rows[in_epoch] = permute(index[in_epoch], self.per_epoch, seed)
        return rows

    def take(self, samples: Sequence[int]) -> npt.NDArray[np.int64]:
        """See ``Rows``."""
        return self.rows(self.order(samples))

    def scored(self, samples: Sequence[int]) -> npt.NDArray[np.bool_] | None:
        """See ``Rows``."""
        if not self.spans:
            return None
        first, stop = self._gather(self.spans, self.order(samples)).T[:, :, None]
        position = np.arange(self.length)
        return (first <= position) & (position < stop)

    def rows(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return rows by their number, in the order of the shards."""
        return self._gather(self.shards, numbers)

    def _gather(
        self, shards: Sequence[npt.NDArray[np.unsignedinteger]], numbers: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        # Read shard by shard, so that each memory map is indexed once.
        gathered = np.empty((len(numbers), shards[0].shape[1]), dtype=np.int64)
        shard_of = np.searchsorted(self._starts, numbers, side="right") - 1
        for shard in np.unique(shard_of):
            in_shard = shard_of == shard
            gathered[in_shard] = shards[shard][numbers[in_shard] - self._starts[shard]]
        return gathered


def open_prepared(folder: Path, tokenizer: Tokenizer, key: str, *, length: int) -> Index:
    """Read the index of prepared data and compare it with a run.

    Raises:
        UserError: It is unfinished or damaged, or was made with another length or tokenizer.
    """
    index = read_index(folder, key)
    if index.tokenizer.sha256 != tokenizer.fingerprint:
        raise UserError(
            f"{key}: {folder} was prepared by tokenizer {index.tokenizer.sha256[:12]}, "
            f"data.tokenizer {tokenizer.folder} is {tokenizer.fingerprint[:12]}"
        )
    if index.length != length:
        raise UserError(f"data.length: {length}, but {folder} has rows of {index.length}")
    check_sizes(index, folder, key)
    return index


def training_rows(index: Index, folder: Path, *, seed: int) -> PreparedRows:
    """Map the training rows of prepared data.

    Raises:
        UserError: There are none.
    """
    if not index.rows(TRAIN):
        raise UserError(f"data.corpus: {folder} has not one row of training text")
    shards = [token_array(index, folder, shard) for shard in index.splits[TRAIN]]
    spans = [s for s in (span_array(folder, s) for s in index.splits[TRAIN]) if s is not None]
    counts = np.fromfile(folder / index.counts.file, dtype="<i8")
    return PreparedRows(shards, seed, spans=spans, counts=counts, fingerprint=index.fingerprint)


def heldout_rows(index: Index, folder: Path, count: int) -> npt.NDArray[np.int64]:
    """Read ``count`` rows at even distances from the held-out ones.

    Raises:
        UserError: There are fewer.
    """
    available = index.rows(HELDOUT)
    if available < count:
        raise UserError(
            f"data.corpus: {count} held-out rows were asked for; {folder} has {available}"
        )
    shards = [token_array(index, folder, shard) for shard in index.splits[HELDOUT]]
    all_rows = PreparedRows(shards, 0, counts=np.empty(0, np.int64), fingerprint="")
    return all_rows.rows(np.arange(count) * available // count)


def token_array(index: Index, folder: Path, shard: Shard) -> npt.NDArray[np.unsignedinteger]:
    """Map the tokens of a shard, shape (rows, length)."""
    path = folder / shard.tokens.file
    return np.memmap(path, dtype=index.dtype, mode="r", shape=(shard.rows, index.length))


def span_array(folder: Path, shard: Shard) -> npt.NDArray[np.uint32] | None:
    """Map the spans of a shard, shape (rows, 2); None if the loss covers whole rows."""
    if shard.spans is None:
        return None
    return np.memmap(folder / shard.spans.file, dtype="<u4", mode="r", shape=(shard.rows, 2))
