"""Pseudorandom permutations of any size that need no memory."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from idlm_ds.noise import derive_seed

ROUNDS = 6
"""Rounds of the network; even, so that both halves end in their original places."""

LEAST_BITS = 5
"""Minimum width of the permuted numbers; with fewer bits there are too few permutations."""


def permute(index: npt.NDArray[np.int64], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Apply the random permutation of ``range(count)`` that a seed names to some of its members.

    A Feistel network permutes the numbers below a power of two; results of ``count`` or more are
    passed through it again until they are smaller (cycle walking).

    Memory: proportional to ``index``, for any ``count``.
    """
    bits = max(LEAST_BITS, int(count - 1).bit_length())
    keys = _round_keys(seed)
    order = _feistel(index.astype(np.uint64), bits, keys)
    while (beyond := order >= count).any():
        order[beyond] = _feistel(order[beyond], bits, keys)
    return order.astype(np.int64)


def _feistel(numbers: npt.NDArray[np.uint64], bits: int, keys: tuple[int, ...]) -> npt.NDArray:
    narrow, wide = bits // 2, bits - bits // 2
    left, right = numbers >> np.uint64(wide), numbers & _ones(wide)
    for i, key in enumerate(keys):
        # The halves swap places every round, and with them their widths.
        replaced = wide if i % 2 else narrow
        left, right = right, left ^ (_mix(right + np.uint64(key)) & _ones(replaced))
    return (left << np.uint64(wide)) | right


def _ones(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mix all bits of a value (the finaliser of splitmix64); multiplication wraps."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@lru_cache(maxsize=16)
def _round_keys(seed: int) -> tuple[int, ...]:
    return tuple(derive_seed(seed, "round", i) for i in range(ROUNDS))
