"""How much memory work needs on top of what stays."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
THRESHOLD = 65_536
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def give_back_at_once() -> None:
    """Let freed memory leave the process, so that resident memory is what is alive."""
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, THRESHOLD)
    libc.mallopt(M_TRIM_THRESHOLD, THRESHOLD)


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return _read("VmRSS")


def start_peak() -> None:
    """Forget the most that was ever in memory."""
    CLEAR.write_text("5")


def peak() -> int:
    """Return the most bytes in memory since ``start_peak``."""
    return _read("VmHWM")


def settled() -> int:
    """Return resident bytes after everything unused has been freed."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident()


def peak_of(work: Callable[[], object]) -> int:
    """Run something and return the most bytes that were in memory meanwhile."""
    start_peak()
    work()
    return peak()


def _read(name: str) -> int:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024
