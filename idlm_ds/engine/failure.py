"""A failure of one rank ends all ranks within seconds.

The rank that fails writes a record into the store in which the processes met. A thread of every
other rank looks for one twice a second, also while the main thread waits in a collective, and ends
the process. Training is not involved: the thread has a connection of its own.
"""

import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import NoReturn

import torch.distributed as dist

from idlm_ds.engine import meeting
from idlm_ds.errors import EXIT_UNEXPECTED, UserError
from idlm_ds.leaving import exit_now
from idlm_ds.startup import rank, world_size

POLL_S = 0.5

GRACE_S = 3.0
"""How long a rank that hears of a failure may take to report an error of its own."""

SAID_S = 2.0
"""How long other ranks wait to see whether rank 0 reports the same error as they."""

LINGER_S = 20.0
"""How long the rank that serves the store waits for the others to leave after a failure."""


class Channel:
    """This rank's part in agreeing that a run has failed."""

    def __init__(self, store: dist.Store) -> None:
        """Start with a connection that nothing else uses."""
        self._store = store
        self._over = Event()
        """Set once the main thread is on its way out and needs no watching."""

    def watch(self) -> None:
        """Look for failures of other ranks in a thread, from now on."""
        Thread(target=self._watch, name="failures", daemon=True).start()

    def report(
        self, code: int, text: str | None, *, is_expected: bool, shown: str | None = None
    ) -> tuple[int, bool]:
        """Tell the others that this rank fails.

        An unexpected error that follows the failure of another rank is its consequence, and not
        worth a traceback. An expected one is this rank's own, unless rank 0 says the same.

        Args:
            code: Exit code of this rank's error.
            text: What this rank would print, None for nothing.
            is_expected: Whether it is an error of the user; rank 0 has then printed it already.
            shown: The text with the name of this rank, for other ranks to pass on to torchrun.

        Returns:
            The exit code of the first failure, and whether to print the text.
        """
        self._over.set()
        own = json.dumps([rank(), code, shown])
        try:
            first, first_code, cause = json.loads(self._store.compare_set("failed", "", own))
            if first != rank():
                record(cause)
            if not is_expected:
                return first_code, first == rank()
            if rank() == 0:
                self._store.set("said", text or "")
                return first_code, False
            return first_code, not self._was_said(text or "")
        except RuntimeError:
            return code, True

    def leave(self, limit: float = LINGER_S) -> None:
        """Let the others leave first where this rank serves the store."""
        with suppress(RuntimeError):
            if not meeting.is_server():
                self._over.set()
                self._store.add("left", 1)
                return
            deadline = time.monotonic() + limit
            while self._store.add("left", 0) < world_size() - 1 and time.monotonic() < deadline:
                time.sleep(meeting.POLL_S)
        self._over.set()

    def _was_said(self, text: str) -> bool:
        deadline = time.monotonic() + SAID_S
        while time.monotonic() < deadline:
            if self._store.check(["said"]):
                return self._store.get("said").decode() == text
            time.sleep(meeting.POLL_S)
        return False

    def _watch(self) -> None:
        while not self._over.wait(POLL_S):
            try:
                has_failed = self._store.check(["failed"])
                failure = json.loads(self._store.get("failed")) if has_failed else None
            except RuntimeError:
                if not self._over.wait(GRACE_S):
                    self._stop(EXIT_UNEXPECTED, "rank 0 is gone")
                return
            if failure is not None:
                if not self._over.wait(GRACE_S):
                    _, code, cause = failure
                    record(cause)
                    self._stop(code)
                return

    def _stop(self, code: int, reason: str | None = None) -> NoReturn:
        if reason:
            sys.stderr.write(f"error ({own_name()}): {reason}\n")
        self.leave()
        exit_now(code)


_channel: Channel | None = None
_store: dist.Store | None = None
"""Kept as long as the process lives, because rank 0's object is the server of all."""

_has_met = False
"""Whether this process has tried to meet the others, successfully or not."""


def start_watching(patience: float) -> None:
    """Open this rank's channel and watch for failures; the store must be served by now.

    Raises:
        UserError: The store cannot be reached.
    """
    global _channel
    _channel = Channel(meeting.open_store(serves=False, patience=patience, is_up=True))
    _channel.watch()


def stop_watching(limit: float) -> None:
    """End the watch after a run without failures.

    Where this rank serves the store it waits for the others, and still ends with them if one fails.

    Args:
        limit: Seconds to wait for the others at most.
    """
    global _channel
    if _channel is not None:
        _channel.leave(limit)
    _channel = None


def meet(patience: float) -> dist.Store:
    """Open the store for the process group.

    Raises:
        UserError: It cannot be reached in time, or the port is taken.
    """
    global _has_met, _store
    _has_met = True
    _store = meeting.open_store(serves=meeting.is_server(), patience=patience)
    return _store


def has_met() -> bool:
    """Whether this process has tried to meet the others."""
    return _has_met


def store() -> dist.Store:
    """Return the store of a process that has met the others."""
    assert _store is not None
    return _store


def announce(
    code: int, text: str | None, *, is_expected: bool, shown: str | None = None
) -> tuple[int, bool]:
    """Tell the other ranks that this one fails, also where it fails before it has met them.

    See ``Channel.report``. The process should end soon: see ``leave``.
    """
    global _channel
    if _channel is None and not _has_met:
        try:
            _channel = Channel(meet(LINGER_S))
        except UserError:
            pass
        except SystemExit as ended:
            return int(str(ended.code)), True
    if _channel is None:
        return code, True
    return _channel.report(code, text, is_expected=is_expected, shown=shown)


def leave() -> None:
    """Wait for the others to end where they need this process for that."""
    if _channel is not None:
        _channel.leave()


def record(text: str | None) -> None:
    """Leave what was printed for torchrun, which shows it again in its last lines.

    It shows the file of the process it finds dead first, which need not be the one that failed.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file and text is not None:
        details = {"py_callstack": text, "timestamp": str(int(time.time()))}
        content = {"message": {"message": text, "extraInfo": details}}
        with suppress(OSError):
            Path(file).write_text(json.dumps(content), "utf-8")


def own_name() -> str:
    """Return rank and host of this process, for messages."""
    return f"rank {rank()} on {socket.gethostname()}"
