"""Encode texts in parallel worker processes, in a fixed order."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from idlm_ds.data.prepare.detokenize import DETOKENIZERS
from idlm_ds.data.prepare.packing import EncodedTexts
from idlm_ds.data.prepare.wordwise import WordCache
from idlm_ds.data.tokenizer_backends import Encoder
from idlm_ds.errors import UserError
from idlm_ds.startup import keep_to_one_thread


@dataclass
class TextEncoder:
    """Detokenizer and encoder of a text, picklable for worker processes."""

    encoder: Encoder
    dtype: str
    """Integer type of the tokens."""

    detokenizer: str | None = None
    """Name of a function in ``DETOKENIZERS`` that is applied to a text first."""

    def __post_init__(self) -> None:
        is_wordwise = self.encoder.is_wordwise
        self._word_cache = WordCache(self.encoder, self.dtype) if is_wordwise else None

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Turn texts into tokens."""
        if self.detokenizer is not None:
            texts = [DETOKENIZERS[self.detokenizer](text) for text in texts]
        if self._word_cache is not None:
            return self._word_cache.encode(texts)
        ids = self.encoder.encode(texts)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        tokens = np.fromiter(chain.from_iterable(ids), self.dtype, int(lengths.sum()))
        return EncodedTexts(tokens, lengths)


def encode_all(
    encoder: TextEncoder, groups: Iterable[Sequence[str]], *, workers: int
) -> Iterator[EncodedTexts]:
    """Encode groups of texts, in the order of the groups.

    The result does not depend on the number of workers, since each text is encoded on its own. With
    one worker, the current process encodes. Few groups are held at a time.

    Raises:
        UserError: A worker died.
    """
    if workers == 1:
        yield from map(encoder.encode, groups)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(encoder,))
    try:
        # Two groups per worker in flight keep all busy and bound the memory.
        pending: deque[Future[EncodedTexts]] = deque()
        for group in groups:
            pending.append(pool.submit(_encode, group))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "--workers: one of them died, most likely for want of memory; the same command with "
            "fewer goes on from the last finished shard"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_worker: dict[str, Any] = {}
"""The encoder of a worker process."""


def _start_worker(encoder: TextEncoder) -> None:
    keep_to_one_thread()
    # Ctrl-C reaches all processes; the parent alone decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _worker["encoder"] = encoder


def _exit_with_parent() -> None:
    """End a worker whose parent was killed, which would otherwise wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode(texts: Sequence[str]) -> EncodedTexts:
    encoder: TextEncoder = _worker["encoder"]
    return encoder.encode(texts)
