import pytest
import torch
from torch import Tensor

from idlm_ds.objectives.base import batch_loss

from ..tolerances import assert_close

GLOBAL_BATCH, LENGTH = 12, 5


def over_ranks(
    nats: Tensor, scored: Tensor, *, reduction: str, world: int, micro: int
) -> tuple[Tensor, Tensor]:
    """Sum micro-batches and average ranks, as the engine does; loss and gradient."""
    nats = nats.clone().requires_grad_()
    total = torch.zeros((), dtype=nats.dtype)
    for first in range(0, GLOBAL_BATCH, micro):
        rows = slice(first, first + micro)
        # Positions that are not scored are absent, so micro-batches differ in size.
        loss = batch_loss(
            nats[rows][scored[rows]],
            reduction=reduction,
            global_batch=GLOBAL_BATCH,
            length=LENGTH,
            world=world,
        )
        total = total + loss / world
    total.backward()
    return total.detach(), nats.grad


def test_one_nat_at_half_of_the_positions_is_half_a_nat_per_token():
    nats = torch.ones(2 * 4 // 2)
    common = {"global_batch": 2, "length": 4, "world": 1}
    assert batch_loss(nats, reduction="mean", **common).item() == 0.5
    assert batch_loss(nats, reduction="sum", **common).item() == 2.0


@pytest.mark.parametrize(("world", "micro"), [(1, 12), (1, 3), (2, 6), (2, 1), (4, 3), (3, 2)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ranks_and_micro_batches_add_up_to_the_global_batch(reduction, world, micro, generator):
    nats = torch.rand(GLOBAL_BATCH, LENGTH, generator=generator, dtype=torch.float64)
    scored = torch.rand(GLOBAL_BATCH, LENGTH, generator=generator) < 0.4
    per_sequence = LENGTH if reduction == "mean" else 1
    expected = (nats * scored).sum(1).mean() / per_sequence
    got, grad = over_ranks(nats, scored, reduction=reduction, world=world, micro=micro)
    assert_close(got, expected)
    assert_close(grad, scored.double() / (GLOBAL_BATCH * per_sequence))


def test_a_small_difference_of_large_losses_is_not_lost():
    nats = torch.tensor([2.0**25, 1.0, -(2.0**25)])
    loss = batch_loss(nats, reduction="sum", global_batch=1, length=3, world=1)
    assert loss.item() == 1


def test_nothing_scored_costs_nothing():
    loss = batch_loss(torch.empty(0), reduction="mean", global_batch=4, length=8, world=2)
    assert loss.item() == 0
