"""Products of hidden states and the vocabulary projection, in float32 and in blocks of rows.

Shapes: P rows in all, R rows of a block, D hidden width, V vocabulary entries.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from idlm_ds.tensor_types import Logits

BUFFER = {"cpu": 2**23, "cuda": 2**25}
"""Scores in a block, by kind of device: what its caches hold, and what is little memory."""

LEAST_ROWS = {"cpu": 64, "cuda": 128}
"""Rows of a block, however long: with fewer, matrix products are slow."""

MOST_ROWS = {"cpu": 256, "cuda": 1024}
"""Rows of a block, however short."""

PANEL = 8192
"""Vocabulary entries of a 16-bit weight that are widened at a time."""

HAS_WIDE_PRODUCTS = "dtype_out" in torch.ops.aten.mm.overloads()
"""Whether this torch multiplies 16-bit matrices on a GPU into a float32 result."""

Hidden: TypeAlias = Float[Tensor, "P D"]


def block_rows(vocab_size: int, device: torch.device) -> int:
    """Return how many rows of scores are computed at a time."""
    kind = "cpu" if device.type == "cpu" else "cuda"
    fitting = BUFFER[kind] // vocab_size // 32 * 32
    return min(MOST_ROWS[kind], max(LEAST_ROWS[kind], fitting))


def score_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the precision of scores: float32, or that of the hidden states where it is wider."""
    return torch.promote_types(dtype, torch.float32)


@final
@dataclass(frozen=True, slots=True)
class ScoreRows:
    """Scores (P, V) that are computed where they are used; they never exist as a whole.

    Valid only inside the forward pass of the projection, where ZeRO-3 holds its weight.
    """

    hidden: Hidden
    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"] | None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and vocabulary entries."""
        return len(self.hidden), len(self.weight)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the scores."""
        return score_dtype(self.hidden.dtype)

    @property
    def device(self) -> torch.device:
        """Where they are computed."""
        return self.hidden.device

    def buffer(self, rows: int | None = None) -> Tensor:
        """Allocate room for a block of scores, or for ``rows`` rows.

        A CPU multiplies (V, D) by (D, R) faster than (R, D) by (D, V), so there a row of scores
        is a column in memory.
        """
        size = min(rows or block_rows(self.shape[1], self.device), max(len(self.hidden), 1))
        if self.device.type == "cpu":
            return torch.empty(self.shape[1], size, dtype=self.dtype).t()
        return torch.empty(size, self.shape[1], dtype=self.dtype, device=self.device)

    def scores(self, index: Int[Tensor, " R"] | slice, out: Tensor | None = None) -> Logits:
        """Compute the scores of some rows.

        Args:
            index: The rows, at most as many as ``out`` has.
            out: A ``buffer``, whose first rows are overwritten and returned.

        Gradient: none.
        """
        hidden = self.hidden.detach()[index]
        out = self.buffer(len(hidden)) if out is None else out
        raw = first_rows(out, len(hidden))
        return scores_into(raw, hidden, self.weight.detach(), self.bias)


def first_rows(out: Logits, rows: int) -> Logits:
    """Return room for fewer rows in the memory of a ``buffer``, dense like the whole."""
    if len(out) == rows or out.is_contiguous():
        return out[:rows]
    return out.t().view(-1)[: rows * out.shape[1]].view(out.shape[1], rows).t()


def blocks(rows: int, size: int) -> Iterator[slice]:
    """Cut a number of rows into blocks."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def scores_into(
    out: Logits, hidden: Hidden, weight: Float[Tensor, "V D"], bias: Float[Tensor, " V"] | None
) -> Logits:
    """Write ``hidden weight^T + bias`` to ``out``.

    Precision: accumulated and kept in float32, whatever the precision of the operands. Scores
    rounded to 16 bits would have errors as large as the difference of teacher and fake.
    """
    if hidden.dtype == out.dtype:
        _product(out, hidden, weight)
    elif hidden.is_cuda and HAS_WIDE_PRODUCTS:
        torch.mm(hidden, weight.t(), out_dtype=out.dtype, out=out)
    else:
        wide = hidden.to(out.dtype)
        for panel in blocks(len(weight), PANEL):
            _product(out[:, panel], wide, weight[panel].to(out.dtype))
    return out if bias is None else out.add_(bias.detach())


def _product(out: Logits, hidden: Hidden, weight: Float[Tensor, "V D"]) -> None:
    if out.t().is_contiguous():
        torch.mm(weight, hidden.t(), out=out.t())
    else:
        torch.mm(hidden, weight.t(), out=out)


class _Project(torch.autograd.Function):
    """The projection of 16-bit operands to float32 scores."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return ScoreRows(hidden, weight, bias).scores(slice(None)).contiguous()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        by_hidden, by_weight, by_bias = ctx.needs_input_grad
        narrow = slope.to(hidden.dtype)
        return (
            narrow @ weight if by_hidden else None,
            narrow.t() @ hidden if by_weight else None,
            slope.sum(0).to(weight.dtype) if by_bias else None,
        )


def project(
    hidden: Hidden, weight: Float[Tensor, "V D"], bias: Float[Tensor, " V"] | None
) -> Logits:
    """Project all rows at once.

    Gradient: reaches all arguments. Precision: float32 or wider.
    """
    if hidden.dtype == score_dtype(hidden.dtype):
        return F.linear(hidden, weight, bias)
    scores: Tensor = _Project.apply(hidden, weight, bias)
    return scores
