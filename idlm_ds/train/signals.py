"""Signals that ask a run to make room: noted, and obeyed where nothing is lost.

While a run loads, the first signal ends it at once. From ``training_begins`` on it is only noted,
and ``train/hooks/preemption.py`` ends the run at the next boundary, on all ranks together. A second
signal always leaves at once, also where the main thread waits in a collective. This module imports
no torch: signals are watched before anything slow is imported.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, final

from idlm_ds.errors import Preempted

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
SAME_EVENT_S = 1.0
"""A batch system and a launcher may both pass on one event; that is not a second signal."""

LOADING_S = 10.0
"""Longest that a loading run takes to leave; it may be waiting for ranks that have gone."""


@final
class SignalWatch:
    """Handlers of ``SIGNALS`` in this process, and a thread that sees each of them arrive.

    Handlers run in the main thread, once it is back in Python; the thread needs no such moment.
    """

    def __init__(self, exit_code: int) -> None:
        """Take over the signals; only the main thread can."""
        self._exit_code = exit_code
        self._is_loading = self._is_training = False
        self._received: set[int] = set()
        self._late = threading.Timer(LOADING_S, self._give_up_loading)
        self._late.daemon = True
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._handlers: dict[int, Any] = {n: signal.signal(n, self._note) for n in SIGNALS}

    @property
    def received(self) -> tuple[bool, ...]:
        """Tell which of ``SIGNALS`` have arrived."""
        return tuple(number in self._received for number in SIGNALS)

    def loading_begins(self) -> None:
        """From here on, the caller is ready for the exception of a first signal.

        Raises:
            Preempted: One has arrived already.
        """
        self._is_loading = True
        if self._received:
            self._leave_loading()

    def training_begins(self) -> None:
        """From here on, a first signal waits for a boundary.

        Raises:
            Preempted: One has arrived already.
        """
        self._is_loading, self._is_training = False, True
        if self._received:
            self._leave_loading()

    def ending(self, exit_code: int) -> None:
        """From here on, signals change nothing but how soon the process leaves with its code."""
        self._exit_code = exit_code
        self._is_loading = False

    def close(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._writing)
        self._thread.join()
        self._late.cancel()
        os.close(self._reading)

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_first = not self._received
        self._received.add(number)
        if is_first and self._is_loading:
            self._leave_loading()

    def _leave_loading(self) -> None:
        raise Preempted(f"stopped by {names(self.received)} before training began; nothing to save")

    def _give_up_loading(self) -> None:
        if not self._is_training:
            os._exit(self._exit_code)

    def _listen(self) -> None:
        first = None
        while number := os.read(self._reading, 1):
            # Signals of other handlers, such as SIGINT, arrive here too.
            if number[0] not in SIGNALS:
                continue
            now = time.monotonic()
            if first is None:
                first = now
                self._late.start()
            elif now - first > SAME_EVENT_S:
                os._exit(self._exit_code)


_watch: SignalWatch | None = None


@contextmanager
def watched(exit_code: int) -> Iterator[None]:
    """Watch the signals of this process; ``exit_code`` is that of a run they end."""
    global _watch
    _watch = SignalWatch(exit_code)
    try:
        yield
    finally:
        _watch.close()
        _watch = None


def loading_begins() -> None:
    """Tell the watch that a first signal may raise from now on.

    Raises:
        Preempted: A signal has arrived already.
    """
    if _watch is not None:
        _watch.loading_begins()


def training_begins() -> None:
    """Tell the watch that a first signal waits for a boundary from now on.

    Raises:
        Preempted: A signal has arrived already.
    """
    if _watch is not None:
        _watch.training_begins()


def ending(exit_code: int) -> None:
    """Tell the watch that the run is over, and with which exit code.

    Whoever started the ranks may end the others with a signal once one has left.
    """
    if _watch is not None:
        _watch.ending(exit_code)


def received() -> tuple[bool, ...]:
    """Tell which of ``SIGNALS`` this process has received; none where nothing watches."""
    return (False,) * len(SIGNALS) if _watch is None else _watch.received


def names(arrived: Sequence[bool | float]) -> str:
    """Name those of ``SIGNALS`` that arrived, somewhere."""
    pairs = zip(SIGNALS, arrived, strict=True)
    return ", ".join(number.name for number, has_arrived in pairs if has_arrived)
