"""Random numbers as a function of what they are for.

Nothing in this package draws from a global generator. Every stream is derived from a seed and the
name of its use, and every sequence owns its stream, so a draw does not depend on how many
processes share the batch, on the micro-batch, or on what ran before.
"""

import hashlib
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from idlm_ds.kernels.draw import draw
from idlm_ds.tensor_types import PerPosition, Positions, Probs, Time

NORMAL_ROWS = 16
"""Rows of normal numbers drawn at a time: on a CPU, parts of a multiple of 16 are the whole."""


def derive_seed(seed: int, *path: str | int) -> int:
    """Hash a seed and the path of its use to 63 bits.

    ``derive_seed(0, "time", 7)`` is unrelated to ``derive_seed(0, "time", 8)`` and is the same
    number on every machine.
    """
    text = "/".join([str(seed), *(f"{type(p).__name__}:{p}" for p in path)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Noise:
    """Independent streams of uniform numbers, one per sequence of a batch."""

    def __init__(self, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._generators = [Generator(self.device).manual_seed(s) for s in seeds]

    @classmethod
    def of_samples(
        cls, seed: int, *path: str | int, samples: Sequence[int], device: torch.device | str = "cpu"
    ) -> "Noise":
        """Give every global sample index its own stream under ``path``."""
        return cls([derive_seed(seed, *path, i) for i in samples], device=device)

    def copy(self) -> "Noise":
        """Copy the streams with their state, to draw the same numbers again."""
        twin = Noise([], device=self.device)
        twin._generators = [g.clone_state() for g in self._generators]
        return twin

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "B *shape"]:
        """Draw the next numbers of every stream, in [0, 1).

        Precision: float64 unless asked otherwise; float32 uniforms have a smallest step of 6e-8,
        below which rare tokens are never drawn.
        """
        rows = [
            torch.rand(shape, generator=g, dtype=dtype, device=self.device)
            for g in self._generators
        ]
        return torch.stack(rows)

    def normal(self, *shape: int) -> Float[Tensor, "B *shape"]:
        """Draw the next standard normal numbers of every stream.

        Precision: float32, which is all a network's input can hold.
        """
        rows = [torch.randn(shape, generator=g, device=self.device) for g in self._generators]
        return torch.stack(rows)

    def normal_blocks(
        self, length: int, width: int
    ) -> Iterator[tuple[slice, Float[Tensor, "R width"]]]:
        """Draw a standard normal array from every stream, a few rows at a time.

        Yields the rows of the flattened (B * length, width) array and their values.

        Precision: float32, which is all a network's input can hold.
        """
        for b, generator in enumerate(self._generators):
            for start in range(0, length, NORMAL_ROWS):
                count = min(NORMAL_ROWS, length - start)
                values = torch.randn(count, width, generator=generator, device=self.device)
                first = b * length + start
                yield slice(first, first + count), values


def stratified_times(seed: int, *path: str | int, count: int, t_min: float) -> Time:
    """Draw one diffusion time per stratum of ``[t_min, 1]``, in random order.

    The order matters: two draws of this kind, both sorted, would tie the student's input time
    to the time at which its sample is noised again.

    Args:
        seed: The seed of the run.
        path: The use of these times, such as ``("time", step)``.
        count: Sequences in the *global* batch; every rank draws all of them and takes its rows.
        t_min: Smallest time.

    Precision: float64.
    """
    generator = Generator().manual_seed(derive_seed(seed, *path))
    offset = torch.rand(count, generator=generator, dtype=torch.float64)
    order = torch.randperm(count, generator=generator)
    return t_min + (1.0 - t_min) * (order + offset) / count


def draw_categorical(probs: Probs, uniform: PerPosition) -> Positions:
    """Draw one entry a row by inverting the cumulative distribution.

    Args:
        probs: Non-negative rows, as rows or as columns of memory; they need not be normalised, but
            their sums must be finite.
        uniform: One number in ``[0, 1)`` per row.

    Returns:
        Indices of shape (P,); an entry of probability zero is never drawn.

    Precision: float64, but short stretches of float32 rows are summed in float32: probabilities
    of stretches have a relative error below 2e-6. See ``long_rows.find_share``.
    """
    return draw(probs, uniform)
