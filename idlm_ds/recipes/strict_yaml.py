"""YAML with its surprises taken out.

Plain words are null, true, false, decimal integers, decimal floats, or text: ``off`` and ``no``
are words, ``010`` and ``1:30`` are not numbers. Tags, anchors, aliases and merge keys, duplicate
keys and keys that are not text are refused.
"""

import re
from collections.abc import Hashable

import yaml

from idlm_ds.recipes.errors import RecipeError, shorten

# Each pattern accepts no more than its PyYAML counterpart, so text that yaml.SafeDumper leaves
# unquoted is text here too.
_WORDS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?|\.[0-9]+(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


class _StrictLoader(yaml.SafeLoader):
    # Empty here, so that add_implicit_resolver below starts from nothing, not from YAML 1.1.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are refused", problem_mark=mark)
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(problem=f"tag {event.tag} is refused", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        seen = set()
        for key_node, _ in node.value:
            key, mark = key_node.value, key_node.start_mark
            if key_node.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=mark)
            if key in seen:
                problem = f"duplicate key {shorten(key)}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


for _kind, _pattern, _first in _WORDS:
    _StrictLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_pattern})$"), _first
    )


def read_yaml(text: str, label: str) -> object:
    """Read one YAML document into None, bool, int, float, str, list and dict.

    Raises:
        RecipeError: ``text`` is not YAML, or uses what this module refuses; begins with ``label``.
    """
    try:
        return _StrictLoader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" line {mark.line + 1}:" if mark else ""
        raise RecipeError(f"{label}:{line} {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{label}: not YAML: {error}") from error
    except RecursionError as error:
        raise RecipeError(f"{label}: nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise RecipeError(f"{label}: {error}") from error


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def _list_on_one_line(dumper: yaml.SafeDumper, data: list[object]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


_PlainDumper.add_representer(list, _list_on_one_line)


def write_yaml(value: object) -> str:
    """Write plain values so that :func:`read_yaml` reads them back equal."""
    return yaml.dump(value, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=100)
