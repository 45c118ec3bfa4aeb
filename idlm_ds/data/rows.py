"""What a source of training data offers, whatever it is made of."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Rows(Protocol):
    """Rows of tokens by their index in the whole run, which goes on from epoch to epoch."""

    @property
    def length(self) -> int:
        """Tokens of a row."""
        ...

    @property
    def fingerprint(self) -> str:
        """Short hash of the tokens, to notice that a resumed run reads other data."""
        ...

    def take(self, samples: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the rows with these global indices, shape (len(samples), length)."""
        ...

    def scored(self, samples: Sequence[int]) -> npt.NDArray[np.bool_] | None:
        """Which positions of these rows are to be learned; None for all of them."""
        ...

    def holds(self, token: int) -> bool:
        """Whether a token occurs in it."""
        ...
