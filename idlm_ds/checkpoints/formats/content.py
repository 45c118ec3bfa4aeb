"""A model to be written, whatever the layout."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from idlm_ds.checkpoints.formats.description import Description
from idlm_ds.checkpoints.formats.plans import ROTARY, parameter_shapes, plan_of
from idlm_ds.checkpoints.tensors import NamedTensors
from idlm_ds.models.rotary import BASE


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """A model to be written."""

    about: Description
    """With all that the layout needs; see ``conversion.check_fits``."""

    weights: NamedTensors
    """Under the names of the network."""

    mean: NamedTensors | None = None
    """A running mean of them, for layouts that hold both."""

    dtype: torch.dtype | None = None
    """None keeps each tensor as it is stored."""

    origin: Mapping[str, Any] | None = None
    """Where it came from, for people to read."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name, in the order of the network's parameters."""
        names = parameter_shapes(self.about.kind, self.about.sizes)
        return {name: self.weights.shape(name) or () for name in names}

    def tensor(self, name: str) -> Tensor:
        """Read a parameter or buffer, whole, into memory of its own."""
        return self._frequencies() if name == ROTARY else whole(self.weights, name, self.dtype)

    def tensors(self) -> dict[str, Tensor]:
        """All parameters."""
        return {name: self.tensor(name) for name in self.shapes()}

    def buffers(self) -> dict[str, Tensor]:
        """Return the buffers that published networks insist on beside their parameters."""
        has_rotary = ROTARY in plan_of(self.about.kind).optional
        return {ROTARY: self._frequencies()} if has_rotary else {}

    def empty(self) -> Iterator[tuple[str, Tensor]]:
        """Names of all parameters and buffers, with tensors that take no memory."""
        for name, shape in self.shapes().items():
            dtype = self.dtype or self.weights.dtype(name)
            yield name, torch.empty(shape, dtype=dtype, device="meta")
        yield from ((name, buffer.to("meta")) for name, buffer in self.buffers().items())

    def _frequencies(self) -> Tensor:
        width = self.about.sizes["hidden"] // self.about.sizes["heads"]
        return BASE ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)


def whole(source: NamedTensors, name: str, dtype: torch.dtype | None = None) -> Tensor:
    """Read a tensor into memory of its own, cast on the way where ``dtype`` is given."""
    shape = source.shape(name) or ()
    values = torch.empty(shape, dtype=dtype or source.dtype(name))
    values.view(-1).copy_(source.read(name, shape, 0, values.numel()))
    return values
