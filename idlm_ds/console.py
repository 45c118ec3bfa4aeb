"""Lines for the user."""

import sys
from threading import Lock, Timer

from tqdm import tqdm


def say(text: str = "") -> None:
    """Write a line to standard output, above any progress bar."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


class Message:
    """A text for standard error that is shown once or not at all."""

    def __init__(self, text: str | None) -> None:
        self.text = text
        self._is_open = text is not None
        self._lock = Lock()

    def show(self) -> None:
        """Show the text, unless it was shown or dropped."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                sys.stderr.write(self.text or "")
                sys.stderr.flush()

    def show_after(self, seconds: float) -> None:
        """Show the text in a while, whatever the main thread waits for."""
        timer = Timer(seconds, self.show)
        timer.daemon = True
        timer.start()

    def drop(self) -> None:
        """Never show the text."""
        with self._lock:
            self._is_open = False


def prefixed(text: str | None, rank: int, host: str) -> str | None:
    """Say in an error message whose it is: ``error (rank 3 on n2): ...``."""
    if text is None:
        return None
    name = f"error (rank {rank} on {host}):"
    head, _, rest = text.partition("error: ")
    return f"{name} {rest}" if rest and not head else f"{name}\n{text}"
