"""Whole tensors out of sharded engines."""

import deepspeed
import torch
from torch import Tensor

from idlm_ds.engine.role import RoleEngine


@torch.no_grad()
def gather_weights(role: RoleEngine, *, is_first: bool) -> dict[str, Tensor]:
    """Collect a network's weights on the first rank, one tensor at a time.

    Collective: every rank must call. The running mean is taken where the role keeps one.

    Returns:
        CPU tensors by parameter name on the first rank, nothing on the others.
    """
    if role.ema is None:
        return _gather(role, is_first=is_first)
    with role.ema.in_place():
        return _gather(role, is_first=is_first)


def _gather(role: RoleEngine, *, is_first: bool) -> dict[str, Tensor]:
    weights = {}
    for name, parameter in role.module.named_parameters():
        partitioned = [parameter] if hasattr(parameter, "ds_id") else []
        with deepspeed.zero.GatheredParameters(partitioned):
            if is_first:
                weights[name] = parameter.detach().cpu().clone()
    return weights
