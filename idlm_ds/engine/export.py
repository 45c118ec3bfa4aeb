"""Whole tensors out of sharded engines."""

import torch
from torch import Tensor

from idlm_ds.engine.role import Role, TrainedRole
from idlm_ds.engine.zero import gathered


@torch.no_grad()
def gather_weights(role: Role, *, is_first: bool) -> dict[str, Tensor]:
    """Collect a network's weights on the first rank, one tensor at a time.

    Collective: every rank must call. Of a network that learns, the running mean is taken.

    Returns:
        CPU tensors by parameter name on the first rank, nothing on the others.
    """
    if not isinstance(role, TrainedRole):
        return _gather(role, is_first=is_first)
    with role.ema.in_place():
        return _gather(role, is_first=is_first)


def _gather(role: Role, *, is_first: bool) -> dict[str, Tensor]:
    weights = {}
    for name, parameter in role.module.named_parameters():
        with gathered(parameter):
            if is_first:
                weights[name] = parameter.detach().cpu().clone()
    return weights
