"""Counts what ZeRO-3 gathers: by whom it was wanted, and what is left whole after each pass."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Self
from unittest.mock import patch

from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from deepspeed.runtime.zero.partitioned_param_coordinator import (
    PartitionedParameterCoordinator as Coordinator,
)
from torch import nn

from idlm_ds.engine.trio import Borrowed


class GatherCount:
    """What the networks of a run gathered since ``clear``, in elements, inside the block."""

    def __init__(self, roles: Mapping[str, Borrowed]) -> None:
        self._modules = [role.module for role in roles.values()]
        self._wanted: set[Any] = set()
        self._patches = ExitStack()
        self.ahead = 0
        """Elements that the prefetcher asked for before a module did."""

        self.on_demand = 0
        """Elements that a module had to wait for since nothing had asked for them."""

        self.elsewhere = 0
        """Elements gathered by anything but the hooks of modules, such as an optimizer step."""

        self.invalidations = 0
        """Traces thrown away because a module ran that was not the expected one."""

        self.left: list[int] = []
        """Elements whole or in flight, over all networks, at each ``look``."""

    def __enter__(self) -> Self:
        self._wrap(Coordinator, "_invalidate_trace", self._invalidated)
        self._wrap(Coordinator, "fetch_sub_module", self._fetched)
        for module in self._modules:
            for parameter in module.parameters():
                self._wrap(parameter, "all_gather_coalesced", self._gathered)
                self._wrap(parameter, "all_gather", partial(self._gathered_elsewhere, parameter))
        return self

    def __exit__(self, *error: object) -> None:
        self._patches.close()

    def clear(self) -> None:
        """Forget everything."""
        self.ahead = self.on_demand = self.elsewhere = self.invalidations = 0
        self.left = []

    def look(self) -> None:
        """Note what is whole or in flight."""
        self.left.append(sum(map(whole_elements, self._modules)))

    def state(self) -> dict[str, Any]:
        """Return all figures."""
        return {
            "ahead": self.ahead,
            "on_demand": self.on_demand,
            "elsewhere": self.elsewhere,
            "invalidations": self.invalidations,
            "left": list(self.left),
        }

    def _wrap(self, owner: Any, name: str, before: Callable[..., None]) -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            before(*args, **kwargs)
            return original(*args, **kwargs)

        self._patches.enter_context(patch.object(owner, name, wrapped))

    def _invalidated(self, _coordinator: Any) -> None:
        self.invalidations += 1

    def _fetched(self, _coordinator: Any, module: nn.Module, forward: bool) -> None:
        self._wanted = set(module.parameters(recurse=False))

    def _gathered(self, parameters: Iterable[Any], **_: Any) -> None:
        for parameter in _missing(parameters):
            if parameter in self._wanted:
                self.on_demand += parameter.ds_numel
            else:
                self.ahead += parameter.ds_numel

    def _gathered_elsewhere(self, owner: Any, param_list: Any = None, **_: Any) -> None:
        missing = _missing([owner] if param_list is None else param_list)
        self.elsewhere += sum(p.ds_numel for p in missing)


def _missing(parameters: Iterable[Any]) -> list[Any]:
    return [p for p in parameters if p.ds_status is ZeroParamStatus.NOT_AVAILABLE]


def whole_elements(module: nn.Module) -> int:
    """Count the elements of a network that this rank holds whole or is gathering."""
    return sum(
        p.ds_numel for p in module.parameters() if p.ds_status is not ZeroParamStatus.NOT_AVAILABLE
    )
