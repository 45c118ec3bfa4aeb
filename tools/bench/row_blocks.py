"""How many rows of scores the package computes at a time, for a measurement with another number."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from idlm_ds.kernels import projection


@contextmanager
def rows_at_a_time(rows: int) -> Iterator[None]:
    """Compute ``rows`` rows of scores at a time, however long they are."""
    fixed = dict.fromkeys(projection.MOST_ROWS, rows)
    with patch.multiple(projection, MOST_ROWS=fixed, LEAST_ROWS=fixed):
        yield
