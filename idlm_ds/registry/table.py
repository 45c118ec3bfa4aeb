"""Tables of rows: look-up, import of what a row names, and choices."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedRow:
    """A row of a table."""

    name: str
    """What users type."""

    entry_point: str
    """What it stands for, as ``module:name``; see ``load``."""


AnyRow = TypeVar("AnyRow", bound=NamedRow)


def by_name(*rows: AnyRow) -> Mapping[str, AnyRow]:
    """Index rows by their names."""
    return {row.name: row for row in rows}


def default(names: Iterable[str]) -> str:
    """Return the name that counts where nothing is chosen: the first of a table."""
    return next(iter(names))


def look_up(table: Mapping[str, AnyRow], name: object, key: str) -> AnyRow:
    """Return the row of a name.

    Raises:
        ValueError: The table has no such row; names ``key``, where a user or a file says the name.
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


@dataclass(frozen=True, eq=False, slots=True)
class OneOf:
    """Marks text that must be a name of a table: ``Annotated[str, OneOf(FAMILIES)]``.

    The table is read when a value is, so that a row added later counts.
    """

    names: Iterable[str]
    is_allowed: Callable[[str], bool] = lambda name: True

    def choices(self) -> tuple[str, ...]:
        """Return the names that are allowed now."""
        return tuple(name for name in self.names if self.is_allowed(name))
