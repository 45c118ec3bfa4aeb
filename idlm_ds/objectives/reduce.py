"""Reduction of nats per position to the scalar that is differentiated."""

from typing import Literal

import torch

from idlm_ds.tensor_types import PerPosition, Scalar


def batch_loss(
    nats: PerPosition,
    *,
    reduction: Literal["mean", "sum"],
    global_batch: int,
    length: int,
    world: int,
) -> Scalar:
    """Reduce one micro-batch of one rank.

    Summed over the micro-batches of a rank and averaged over the ranks (which is what the
    engine does to gradients) this is the mean over the global batch of the mean, or the sum,
    over the positions of a sequence. Positions absent from ``nats`` cost nothing but count.

    Precision: summed in float64, since the gap is a small difference of large losses.
    """
    per_sequence = length if reduction == "mean" else 1
    return nats.sum(dtype=torch.float64) * (world / (global_batch * per_sequence))
