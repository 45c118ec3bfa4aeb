"""Options of programs as fields of dataclasses.

A field states its flag, type, choices, default, help and range once; the command line and every
check derive from it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from idlm_ds.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rule:
    """A range that every value of a field must lie in."""

    allowed: str
    """The range in words, as in "must be at least 1"."""

    holds: Callable[[Any], bool]


AT_LEAST_1 = Rule("at least 1", lambda value: value >= 1)
ABOVE_0 = Rule("above 0", lambda value: value > 0)
SHARE = Rule("in (0, 1]", lambda value: 0 < value <= 1)


def option(
    default: Any = MISSING, about: str = "", *, flag: str = "", rule: Rule | None = None
) -> Any:
    """Declare a dataclass field that is an option.

    Args:
        default: Value where the option is not given; without one it is required.
        about: Help text.
        flag: What users type; by default the field's name with dashes.
        rule: Range of the value, or of each value where the field holds several. None, as a
            default, lies in every range.
    """
    return field(default=default, metadata={"about": about, "flag": flag, "rule": rule})


class Options:
    """Base of option dataclasses: refuses values out of range."""

    def __post_init__(self) -> None:
        for member, _ in _members(type(self)):
            rule, value = member.metadata.get("rule"), getattr(self, member.name)
            for each in value if isinstance(value, list | tuple) else [value]:
                if rule is not None and each is not None and not rule.holds(each):
                    raise UserError(f"{_flag(member)}: must be {rule.allowed}, got {each}")


def add_options(parser: argparse._ActionsContainer, cls: type) -> None:
    """Add every field of a dataclass; fields that are dataclasses become groups of options."""
    for member, hint in _members(cls):
        if isinstance(hint, type) and is_dataclass(hint):
            group = parser.add_argument_group((hint.__doc__ or "").partition("\n")[0].rstrip("."))
            add_options(group, hint)
        else:
            parser.add_argument(_flag(member), **_argument(member, hint))


def read_options(cls: type[T], values: Mapping[str, Any]) -> T:
    """Make a dataclass, and those in its fields, of what ``add_options`` had parsed.

    Raises:
        UserError: A value is out of range, or two options exclude each other.
    """
    made: dict[str, Any] = {}
    for member, hint in _members(cls):
        is_group = isinstance(hint, type) and is_dataclass(hint)
        value = read_options(hint, values) if is_group else values[member.name]
        made[member.name] = tuple(value) if isinstance(value, list) else value
    return cls(**made)


def _members(cls: Any) -> list[tuple["Field[Any]", Any]]:
    """Fields and their types, required ones first."""
    hints = get_type_hints(cls, include_extras=True)
    members = sorted(fields(cls), key=lambda member: member.default is not MISSING)
    return [(member, hints[member.name]) for member in members]


def _flag(member: "Field[Any]") -> str:
    return member.metadata["flag"] or f"--{member.name.replace('_', '-')}"


def _argument(member: "Field[Any]", hint: Any) -> dict[str, Any]:
    if NoneType in get_args(hint):
        (hint,) = (kind for kind in get_args(hint) if kind is not NoneType)
    about, default = member.metadata["about"], member.default
    if hint is bool:
        action = "store_false" if default else "store_true"
        return {"dest": member.name, "help": about, "action": action}
    argument = {"dest": member.name, "help": about + _shown(default)}
    argument |= {"required": True} if default is MISSING else {"default": default}
    if get_origin(hint) is Sequence:
        argument["nargs"], hint = "+", get_args(hint)[0]
    if get_origin(hint) is Annotated:
        return argument | {"choices": hint.__metadata__[0].choices()}
    if get_origin(hint) is Literal:
        return argument | {"choices": get_args(hint)}
    name = _flag(member).lstrip("-").replace("-", "_").upper()
    return argument | {"type": hint, "metavar": name}


def _shown(default: Any) -> str:
    values = default if isinstance(default, tuple) else (default,)
    if default in (None, MISSING, ()):
        return ""
    return f" (default: {' '.join(map(str, values))})"
