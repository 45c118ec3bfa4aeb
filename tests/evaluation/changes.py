"""Options with some of them changed, in whatever group they are."""

from dataclasses import is_dataclass, replace
from typing import Any, TypeVar

T = TypeVar("T")


def change(options: T, **changes: Any) -> T:
    """Replace fields of a dataclass or of the dataclasses in its fields."""
    fields: Any = options.__dataclass_fields__
    groups = {name: value for name in fields if is_dataclass(value := getattr(options, name))}
    for name, group in groups.items():
        inner = {key: changes.pop(key) for key in [*changes] if hasattr(group, key)}
        changes |= {name: replace(group, **inner)} if inner else {}
    return replace(options, **changes)
