"""Plain mappings into dataclasses: no unknown key, no missing key, no guessed type."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from idlm_ds.recipes.errors import RecipeError, shorten

T = TypeVar("T")

# YAML 1.1 reads 1e-3 as text because it lacks a dot, and 1.0e3 because it lacks a sign.
_SCIENTIFIC = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")
_WORDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
}


def build(cls: type[T], raw: object, key: str = "") -> T:
    """Make a dataclass, whose fields may be dataclasses, of a mapping as YAML gives it.

    ``key`` is the dotted key that ``raw`` stands under; empty for a whole recipe.

    Raises:
        RecipeError: The mapping is not one for ``cls``; starts with the dotted key at fault.
    """
    if not isinstance(raw, Mapping):
        raise _mismatch(key, "a section of keys", raw)
    hints = get_type_hints(cls, include_extras=True)
    # Any: mypy wants the protocol of dataclass instances here, which typing does not export.
    members: Any = fields(cls)  # type: ignore[arg-type]
    known = [field.name for field in members]
    for name in raw:
        if name not in known:
            raise _unknown(_join(key, name), name, known)
    for field in members:
        optional = field.default is not MISSING or field.default_factory is not MISSING
        if not optional and field.name not in raw:
            raise RecipeError(f"{_join(key, field.name)}: missing required key")
    return cls(**{name: _convert(hints[name], raw[name], _join(key, name)) for name in raw})


def default_of(cls: Any, key: str) -> object:
    """Return the default of a dotted key of a recipe class, or of a section's.

    Raises:
        KeyError: There is no such key, or it has no default.
    """
    name, _, rest = key.partition(".")
    field = {member.name: member for member in fields(cls)}[name]
    if rest:
        return default_of(get_type_hints(cls)[name], rest)
    if field.default is MISSING:
        raise KeyError(key)
    return field.default


def is_text(cls: type, path: Sequence[str]) -> bool:
    """Tell whether the value under a dotted key, given as its parts, is free text.

    A key that does not exist holds none.
    """
    hint: Any = cls
    for name in path:
        hint = get_type_hints(hint, include_extras=True).get(name) if is_dataclass(hint) else None
    return hint is str


def _convert(hint: Any, value: object, key: str) -> object:
    if is_dataclass(hint):
        return build(hint, value, key)  # type: ignore[arg-type]
    if get_origin(hint) is Annotated:
        return _choice(hint.__metadata__[0].choices(), value, key)
    if get_origin(hint) is Literal:
        return _choice(get_args(hint), value, key)
    if get_origin(hint) in (Union, UnionType):
        (kind,) = (kind for kind in get_args(hint) if kind is not NoneType)
        return None if value is None else _convert(kind, value, key)
    if get_origin(hint) is tuple:
        return _tuple(get_args(hint), value, key)
    if hint is float:
        return _float(value, key)
    if type(value) is not hint:  # not isinstance: true is no integer
        raise _mismatch(key, _WORDS[hint], value)
    return value


def _choice(allowed: tuple[Any, ...], value: object, key: str) -> object:
    if not isinstance(value, str) or value not in allowed:
        raise _mismatch(key, f"one of {', '.join(allowed)}", value)
    return value


def _tuple(kinds: tuple[Any, ...], value: object, key: str) -> tuple[object, ...]:
    free = kinds[-1] is Ellipsis
    if not isinstance(value, list):
        raise _mismatch(key, "a list", value)
    if not free and len(value) != len(kinds):
        raise RecipeError(f"{key}: expected a list of {len(kinds)}, got {len(value)}")
    return tuple(
        _convert(kinds[0] if free else kinds[i], item, f"{key}[{i}]")
        for i, item in enumerate(value)
    )


def _float(value: object, key: str) -> float:
    if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _mismatch(key, "a number", value)
    try:
        number = float(value)
    except OverflowError:  # an integer beyond every float
        number = math.inf
    if not math.isfinite(number):
        raise RecipeError(f"{key}: expected a finite number, got {number}")
    return number


def _unknown(dotted: str, name: object, known: list[str]) -> RecipeError:
    near = get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return RecipeError(f"{dotted}: unknown key; {hint}")


def _mismatch(key: str, wanted: str, value: object) -> RecipeError:
    return RecipeError(f"{key or 'recipe'}: expected {wanted}, got {_show(value)}")


def _show(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "a list"
    if isinstance(value, Mapping):
        return "a section of keys"
    return shorten(repr(value), 40)


def _join(prefix: str, name: object) -> str:
    return f"{prefix}.{shorten(str(name))}" if prefix else shorten(str(name))
