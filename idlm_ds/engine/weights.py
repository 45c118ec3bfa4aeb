"""Filling a network, sharded or whole, from something that knows tensors by name."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from idlm_ds.errors import UserError


class WeightSource(Protocol):
    """Named tensors of which any run of elements can be read."""

    label: str
    """What to call it in messages."""

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor; None where there is none of that name, () where any shape will do."""
        ...

    def read(self, name: str, shape: tuple[int, ...], start: int, stop: int) -> Tensor:
        """Elements ``start`` to ``stop`` of the flattened tensor, float32 or as stored."""
        ...


def check_weights(module: nn.Module, source: WeightSource) -> None:
    """Hold names and shapes of a network, on any device, against ``source``.

    Raises:
        UserError: A parameter is missing or has another shape.
    """
    for name, parameter in module.named_parameters():
        _check(name, _shape(parameter), source)


@torch.no_grad()
def fill_weights(module: nn.Module, source: WeightSource) -> None:
    """Copy every parameter from ``source``, reading only what this rank keeps.

    Raises:
        UserError: A parameter is missing or has another shape; nothing has been copied.
    """
    check_weights(module, source)
    parameters: dict[str, Any] = dict(module.named_parameters())
    for name, parameter in parameters.items():
        shape = _shape(parameter)
        if hasattr(parameter, "ds_tensor"):
            size, numel = parameter.ds_tensor.ds_numel, parameter.ds_numel
            start = min(torch.distributed.get_rank(parameter.ds_process_group) * size, numel)
            stop = min(start + size, numel)
            part = parameter.ds_tensor.data
            part[: stop - start].copy_(source.read(name, shape, start, stop))
            part[stop - start :].zero_()  # the last rank's is padded with whatever memory held
        else:
            parameter.data.copy_(source.read(name, shape, 0, parameter.numel()).view(shape))


def _shape(parameter: Any) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _check(name: str, wanted: tuple[int, ...], source: WeightSource) -> None:
    found = source.shape(name)
    if found is None:
        raise UserError(f"{source.label}: tensor {name} is missing")
    if found not in ((), wanted):
        raise UserError(
            f"{source.label}: {name} has shape {list(found)} but the network needs {list(wanted)}"
        )
