"""One random stream for a whole batch."""

from typing import final

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from idlm_ds.noise import Noise, derive_seed


@final
class BatchNoise(Noise):
    """Random numbers of a batch from one stream, which is faster than a stream per sequence.

    A draw depends on the size of the batch: fit for experiments in one process only.
    """

    def __init__(self, seed: int, *path: str | int, batch: int) -> None:
        super().__init__([])
        self._batch = batch
        self._generators = [Generator().manual_seed(derive_seed(seed, *path))]

    def copy(self) -> "BatchNoise":
        """See base class."""
        twin = BatchNoise(0, batch=self._batch)
        twin._generators = [self._generators[0].clone_state()]
        return twin

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "B *shape"]:
        """See base class."""
        return torch.rand((self._batch, *shape), generator=self._generators[0], dtype=dtype)

    def normal(self, *shape: int) -> Float[Tensor, "B *shape"]:
        """See base class."""
        return torch.randn((self._batch, *shape), generator=self._generators[0])
