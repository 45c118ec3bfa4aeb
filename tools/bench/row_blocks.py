"""How many rows of scores the package computes at a time, for a measurement with another number."""

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import idlm_ds

HOME = "idlm_ds.kernels.projection"
"""The module that decides it, by ``MOST_ROWS`` for each kind of device within ``BLOCK_BYTES``."""


def has_blocks() -> bool:
    """Tell whether this version computes scores in blocks at all."""
    *folders, name = HOME.split(".")[1:]
    return Path(idlm_ds.__file__).parent.joinpath(*folders, f"{name}.py").is_file()


@contextmanager
def rows_at_a_time(rows: int | None) -> Iterator[None]:
    """Compute ``rows`` rows of scores at a time, however long they are; None changes nothing."""
    with ExitStack() as stack:
        if rows is not None:
            home = importlib.import_module(HOME)
            most = dict.fromkeys(home.MOST_ROWS, rows)
            stack.enter_context(patch.object(home, "MOST_ROWS", most))
            stack.enter_context(patch.object(home, "BLOCK_BYTES", 2**62))
        yield
