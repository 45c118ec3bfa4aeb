"""Interface of training data: rows of tokens by sample index."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Rows(Protocol):
    """Rows of tokens, addressed by a sample index that keeps counting from epoch to epoch."""

    @property
    def length(self) -> int:
        """Tokens per row."""

    @property
    def fingerprint(self) -> str:
        """Short hash of the tokens, by which a resumed run detects other data."""

    def take(self, samples: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the rows of these samples, shape (len(samples), length)."""

    def scored(self, samples: Sequence[int]) -> npt.NDArray[np.bool_] | None:
        """Return which positions of these rows the loss covers; None for all."""

    def holds(self, token: int) -> bool:
        """Tell whether a token occurs in the data."""
