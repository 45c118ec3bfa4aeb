"""A random order of any number of things that is never written down."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from idlm_ds.noise import derive_seed

ROUNDS = 6
"""An even number, so that both halves end where they began."""

LEAST_BITS = 5
"""Of the numbers that are turned around; with fewer there are too few orders to choose from."""


def permute(index: npt.NDArray[np.int64], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Where each of some positions goes in a random order of ``count`` things.

    A Feistel network turns the numbers below a power of two around; a number that comes out beyond
    ``count`` goes through it again until it does not. Takes the memory of ``index`` and of no more,
    for any ``count``.

    Args:
        index: Positions, each in [0, count).
        count: Number of things; at least 1.
        seed: Names the order.
    """
    bits = max(LEAST_BITS, int(count - 1).bit_length())
    keys = _round_keys(seed)
    order = _turn(index.astype(np.uint64), bits, keys)
    while (beyond := order >= count).any():
        order[beyond] = _turn(order[beyond], bits, keys)
    return order.astype(np.int64)


def _turn(numbers: npt.NDArray[np.uint64], bits: int, keys: tuple[int, ...]) -> npt.NDArray:
    narrow, wide = bits // 2, bits - bits // 2
    left, right = numbers >> np.uint64(wide), numbers & _ones(wide)
    for turn, key in enumerate(keys):
        replaced = wide if turn % 2 else narrow
        left, right = right, left ^ (_mix(right + np.uint64(key)) & _ones(replaced))
    return (left << np.uint64(wide)) | right


def _ones(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread every bit over all others; multiplication wraps."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@lru_cache(maxsize=16)
def _round_keys(seed: int) -> tuple[int, ...]:
    return tuple(derive_seed(seed, "round", i) for i in range(ROUNDS))
