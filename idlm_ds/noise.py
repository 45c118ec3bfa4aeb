"""Random numbers as a function of what they are for.

Nothing in this package draws from a global generator. Every stream is derived from a seed and the
name of its use, and every sequence owns its stream, so a draw does not depend on how many
processes share the batch, on the micro-batch, or on what ran before.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Float64, Int
from torch import Generator, Tensor

from idlm_ds.tensor_types import PerPosition, Positions, Probs, Time

NORMAL_ROWS = 16
"""Rows of normal numbers drawn at a time: on a CPU, parts of a multiple of 16 are the whole."""

STRETCH = 32
"""Entries that are summed before their sum is widened to float64."""


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
        """Draw a standard normal array from every stream.

        Precision: float32, which is all a network's input can hold.
        """
        rows = [torch.randn(shape, generator=g, device=self.device) for g in self._generators]
        return torch.stack(rows)

    def normal_blocks(
        self, length: int, width: int
    ) -> Iterator[tuple[slice, Float[Tensor, "R width"]]]:
        """Draw what ``normal(length, width)`` draws, a few rows at a time.

        Yields the rows of the flattened (B * length, width) array and their values.
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

    Entries are summed in stretches, and these in groups: a group, a stretch and an entry are then
    found one after the other, which reads every row once and copies none.

    Args:
        probs: Non-negative rows; they need not be normalised, but their sums must be finite. A
            row may be a column in memory.
        uniform: One number in ``[0, 1)`` per row.

    Returns:
        Indices of shape (P,); an entry of probability zero is never drawn.

    Precision: stretches are summed in the precision of ``probs``, but float32 at least, and
    everything else is float64. Where ``probs`` are float32, each stretch is drawn with its
    probability up to a relative error of 2e-6, and each entry within it up to 1e-15.
    """
    sums = _stretch_sums(probs)
    groups = sums.unflatten(1, (-1, STRETCH)).sum(2)
    group, inside = _find(groups, uniform.double()[:, None])
    stretch, inside = _find_within(sums, group, inside)
    return _find_within(probs, stretch, inside)[0][:, 0]


def row_sums(probs: Probs) -> Float64[Tensor, " P"]:
    """Sum rows as accurately as ``draw_categorical`` does, wherever they lie in memory."""
    return _stretch_sums(probs).sum(1)


def _stretch_sums(probs: Probs) -> Float64[Tensor, "P S"]:
    """Sum stretches of each row, and add empty ones up to a whole number of groups."""
    rows, size = probs.shape
    whole, groups = size // STRETCH, -(-size // STRETCH**2)
    dtype = torch.promote_types(probs.dtype, torch.float32)
    columns = probs.t()
    if columns.is_contiguous():
        # Summed as it lies: reducing over neighbours in a column would be ten times slower.
        sums = columns[: whole * STRETCH].view(whole, STRETCH, rows).sum(1, dtype=dtype).t()
    else:
        stretches = probs[:, : whole * STRETCH].unflatten(1, (whole, STRETCH))
        sums = stretches.sum(2, dtype=dtype)
    padded = torch.zeros(rows, groups * STRETCH, dtype=torch.float64, device=probs.device)
    padded[:, :whole] = sums
    if whole * STRETCH < size:
        padded[:, whole] = probs[:, whole * STRETCH :].sum(1, dtype=dtype)
    return padded


_Column: TypeAlias = Float64[Tensor, "P 1"]


def _find(weights: Float64[Tensor, "P N"], share: _Column) -> tuple[Int[Tensor, "P 1"], _Column]:
    """Find the entry at a share of each row's sum, and the share of the entry below that point."""
    cumulative = weights.cumsum(1)
    total = cumulative[:, -1:]
    target = torch.minimum(share * total, torch.nextafter(total, torch.zeros_like(total)))
    index = torch.searchsorted(cumulative, target, right=True)
    # Only a row that is no distribution has nothing at that point.
    inside = index.clamp(max=weights.shape[1] - 1)
    weight = weights.gather(1, inside)
    return index, (target - (cumulative.gather(1, inside) - weight)) / weight


def _find_within(
    values: Float[Tensor, "P N"], part: Int[Tensor, "P 1"], share: _Column
) -> tuple[Int[Tensor, "P 1"], _Column]:
    """Go on inside a part of each row, ``STRETCH`` entries long."""
    last = values.shape[1] - 1
    entries = part * STRETCH + torch.arange(STRETCH, device=values.device)
    weights = values.gather(1, entries.clamp(max=last)).double()
    weights = weights.masked_fill(entries > last, 0.0)
    index, inside = _find(weights, share.clamp(0.0, 1.0))
    return part * STRETCH + index, inside
