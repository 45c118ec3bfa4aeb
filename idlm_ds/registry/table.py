"""How rows are looked up, and how what they name is imported."""

import importlib
from collections.abc import Iterable, Mapping
from operator import attrgetter
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
    return {row.name: row for row in rows}


def default(names: Iterable[str]) -> str:
    """The name that counts where nothing is chosen: the first of a table."""
    return next(iter(names))


def look_up(table: Mapping[str, Row], name: object, key: str) -> Row:
    """Return the row of a name.

    Args:
        table: The table.
        name: What a user typed or a file says.
        key: Where, for the message.

    Raises:
        ValueError: The table has no such row.
    """
    if not isinstance(name, str) or name not in table:
        *others, last = table
        raise ValueError(f"{key} must be {', '.join(others)} or {last}, got {name!r}")
    return table[name]


def load(entry_point: str) -> Any:
    """Import what ``module:name`` stands for.

    In exported code the module is relative to the package that this file is in.
    """
    module, _, name = entry_point.partition(":")
    return attrgetter(name)(importlib.import_module(module, __package__))
