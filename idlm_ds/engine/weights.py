"""Loading of weights into a network, sharded or whole."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from idlm_ds.engine.zero import local_part, whole_shape
from idlm_ds.errors import UserError


class WeightSource(Protocol):
    """Named tensors of which any run of elements can be read."""

    label: str
    """Name of the source in messages."""

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return a tensor's shape; None if there is no such tensor, () if any shape will do."""

    def read(self, name: str, shape: tuple[int, ...], start: int, stop: int) -> Tensor:
        """Return elements ``start`` to ``stop`` of the flattened tensor, float32 or as stored."""


def check_weights(module: nn.Module, source: WeightSource) -> None:
    """Check that a source has every parameter of a network, in the same shape.

    Raises:
        UserError: A parameter is missing or has another shape.
    """
    for name, parameter in module.named_parameters():
        _check(name, whole_shape(parameter), source)


@torch.no_grad()
def fill_weights(module: nn.Module, source: WeightSource) -> None:
    """Copy every parameter from ``source``, reading only what this rank keeps.

    Raises:
        UserError: A parameter is missing or has another shape; nothing has been copied.
    """
    check_weights(module, source)
    parameters: dict[str, Any] = dict(module.named_parameters())
    for name, parameter in parameters.items():
        part = local_part(parameter)
        values = source.read(name, whole_shape(parameter), part.start, part.stop)
        part.fill(values.flatten())


def _check(name: str, wanted: tuple[int, ...], source: WeightSource) -> None:
    stored = source.shape(name)
    if stored is None:
        raise UserError(f"{source.label}: tensor {name} is missing")
    if stored not in ((), wanted):
        raise UserError(
            f"{source.label}: {name} has shape {list(stored)} but the network needs {list(wanted)}"
        )
