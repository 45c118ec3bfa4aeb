"""Texts into tokens, by as many processes as asked, in the order they came in."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from typing import Any

import numpy as np

from idlm_ds.data.prepare.detokenize import DETOKENIZERS
from idlm_ds.data.prepare.packing import Encoded
from idlm_ds.data.prepare.wordwise import Wordwise
from idlm_ds.data.vocabulary import Encoder
from idlm_ds.errors import UserError
from idlm_ds.startup import keep_to_one_thread


class TextEncoder:
    """All that is done to a text; it can be sent to another process."""

    def __init__(self, encoder: Encoder, dtype: str, detokenizer: str | None = None) -> None:
        """See class.

        Args:
            encoder: What turns text into ids.
            dtype: The integers they become.
            detokenizer: What is done to a text first, by its name.
        """
        self._encoder = encoder
        self._dtype = dtype
        self._detokenizer = detokenizer
        self._wordwise = Wordwise(encoder, dtype) if encoder.is_wordwise else None

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Turn texts into tokens."""
        if self._detokenizer is not None:
            texts = [DETOKENIZERS[self._detokenizer](text) for text in texts]
        if self._wordwise is not None:
            return self._wordwise.encode(texts)
        ids = self._encoder.encode(texts)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        tokens = np.fromiter(chain.from_iterable(ids), self._dtype, int(lengths.sum()))
        return Encoded(tokens, lengths)


def encode_all(
    encoder: TextEncoder, groups: Iterable[Sequence[str]], *, workers: int
) -> Iterator[Encoded]:
    """Encode groups of texts.

    What comes out does not depend on the number of workers: a text is encoded on its own, and
    groups come out in the order in which they went in.

    Args:
        encoder: What is done to each text.
        groups: The texts; few are held at a time.
        workers: Processes; with one, this one.

    Raises:
        UserError: A process died.
    """
    if workers == 1:
        yield from map(encoder.encode, groups)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(encoder,))
    try:
        waiting: deque[Future[Encoded]] = deque()
        for group in groups:
            waiting.append(pool.submit(_encode, group))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "--workers: one of them died, most likely for want of memory; the same command with "
            "fewer goes on from the last finished shard"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_worker: dict[str, Any] = {}
"""The encoder of this process, which every group it is given is for."""


def _start_worker(encoder: TextEncoder) -> None:
    keep_to_one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _worker["encoder"] = encoder


def _leave_with_parent() -> None:
    """End a worker whose parent was killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode(texts: Sequence[str]) -> Encoded:
    encoder: TextEncoder = _worker["encoder"]
    return encoder.encode(texts)
