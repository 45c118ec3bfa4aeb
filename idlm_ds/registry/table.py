"""How rows are looked up, and how what they name is imported."""

import importlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeVar


class Named(Protocol):
    """A row of a table."""

    @property
    def name(self) -> str:
        """What users type."""
        ...


Row = TypeVar("Row", bound=Named)


def by_name(rows: Iterable[Row]) -> Mapping[str, Row]:
    """Index rows by their names."""
    return MappingProxyType({row.name: row for row in rows})


def load(entry_point: str) -> Any:
    """Import what ``module:name`` names."""
    module, _, name = entry_point.partition(":")
    return getattr(importlib.import_module(module), name)
