"""A loss of vocabulary scores and its gradient, in blocks of rows.

Shapes: P rows in all, R rows of a block, D hidden width, V vocabulary entries.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from idlm_ds.kernels.projection import PANEL, ScoreRows, blocks
from idlm_ds.tensor_types import Logits, PerPosition

RowLoss: TypeAlias = Callable[[Logits, slice], tuple[PerPosition, Logits]]
"""Gets the scores (R, V) of a block and which rows they are; returns the loss of each row and its
derivative by the scores, for which it may use their memory."""


def learn_rows(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, pieces: Sequence[slice], loss: RowLoss
) -> Tensor:
    """Sum a loss over rows of scores, one block after the other.

    No more than one block of scores exists at a time: the gradient is made with the loss, not
    in the backward pass.

    Args:
        hidden: Hidden states (P, D).
        weight: Of the projection (V, D).
        bias: Of the projection (V,), or None.
        pieces: Blocks of rows, each no longer than ``block_rows``.
        loss: The loss of a block.

    Returns:
        The sum, float64.

    Gradient: reaches ``hidden``, ``weight`` and ``bias``, by what ``loss`` says.
    """
    total: Tensor = _LossOfRows.apply(hidden, weight, bias, pieces, loss)
    return total


class _LossOfRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        pieces: Sequence[slice],
        loss: RowLoss,
    ) -> Tensor:
        rows = ScoreRows(hidden, weight, bias)
        into_hidden = torch.zeros_like(hidden)
        # Only what learns; an adapted network's projection may be frozen.
        _, is_weight_learned, is_bias_learned, *_ = ctx.needs_input_grad
        into_weight = torch.zeros_like(weight, dtype=rows.dtype) if is_weight_learned else None
        into_bias = None
        if bias is not None and is_bias_learned:
            into_bias = torch.zeros_like(bias, dtype=rows.dtype)
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        raw = rows.buffer(max((piece.stop - piece.start for piece in pieces), default=1))
        for piece in pieces:
            nats, slope = loss(rows.scores(piece, raw), piece)
            total += nats.sum(dtype=torch.float64)
            # Derivatives by hidden states and projection.
            back_project(slope, weight, out=into_hidden[piece])
            if into_weight is not None:
                _add_outer(into_weight, slope, hidden[piece])
            if into_bias is not None:
                into_bias += slope.sum(0)
        ctx.save_for_backward(into_hidden, into_weight, into_bias)
        ctx.dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        into_hidden, into_weight, into_bias = ctx.saved_tensors
        ctx.maybe_clear_saved_tensors()
        # In place: the memory becomes that of the gradients.
        scaled = [
            None if slope is None else slope.mul_(scale.to(slope.dtype))
            for slope in (into_hidden, into_weight, into_bias)
        ]
        weights = [None if slope is None else slope.to(ctx.dtype) for slope in scaled[1:]]
        return scaled[0], *weights, None, None


def back_project(slope: Logits, weight: Tensor, *, out: Tensor) -> None:
    """Write ``slope weight``, the derivative by hidden states, to ``out`` (R, D).

    Precision: 16-bit weights are multiplied in 16 bits on a GPU and in float32 on a CPU.
    """
    if slope.dtype == weight.dtype:
        torch.mm(slope, weight, out=out)
    elif slope.is_cuda:
        torch.mm(slope.to(weight.dtype), weight, out=out)
    else:
        wide = torch.zeros(out.shape, dtype=slope.dtype, device=slope.device)
        for panel in blocks(len(weight), PANEL):
            wide.addmm_(slope[:, panel], weight[panel].to(slope.dtype))
        out.copy_(wide)


def _add_outer(total: Tensor, slope: Logits, hidden: Tensor) -> None:
    """Add ``slope^T hidden`` to the derivative (V, D) by the weight, kept in float32."""
    if slope.is_cuda and slope.dtype != hidden.dtype:
        total.add_(slope.to(hidden.dtype).t() @ hidden)
    else:
        total.addmm_(slope.t(), hidden.to(slope.dtype))
