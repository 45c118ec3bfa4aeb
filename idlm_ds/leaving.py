"""Leaving a process at once, whatever its threads and libraries do."""

import os
import sys
from contextlib import suppress
from threading import Timer
from typing import NoReturn

FLUSH_S = 5.0
"""How long the last output may take."""


def exit_within(seconds: float, code: int) -> None:
    """Let the process end in so many seconds, should it still be there."""
    end = Timer(seconds, os._exit, [code])
    end.daemon = True
    end.start()


def exit_now(code: int) -> NoReturn:
    """End this process from any thread, with what it has printed.

    The interpreter is not taken down. With torch that takes seconds on a busy machine, and a thread
    that a library still runs can abort it: a run whose files are all written would have failed.
    """
    exit_within(FLUSH_S, code)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
