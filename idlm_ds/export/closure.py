"""The source files a module needs, as siblings of one folder.

Exported code is this package's own: each module that the root needs, directly or not, is copied
under a flat name, ``idlm_ds/models/dit.py`` as ``models_dit.py``, and its imports are rewritten in
place, as are entry points of the registry, ``"idlm_ds.models.dit:DiT"``. Nothing else in it
changes. An import whose meaning is not certain is an error.
"""

import ast
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

import idlm_ds

PACKAGE = "idlm_ds"
WRAPPERS = f"{PACKAGE}.export.remote."
"""Modules below it keep their bare name."""

PROVIDED = {"torch", "transformers", *sys.stdlib_module_names}
"""Packages that are installed where exported code runs."""

STAND_INS = {"jaxtyping": WRAPPERS + "shape_types"}

OPERATORS = f"{PACKAGE}.kernels."
"""Folders of operators, whose plain form is all that needs no more than PyTorch."""

OPTIONAL = {"flash_attn"}
"""Used where installed. Transformers refuses code with an import statement of what is not."""

_IMPORT_FROM = re.compile(rb"from\s+([\w.]+)\s+import\b")
_ENTRY_POINT = re.compile(rf"({PACKAGE}(?:\.\w+)+):\w[\w.]*")


class ClosureError(ValueError):
    """A source file imports something in a way that cannot be exported."""


def collect(root: str) -> dict[str, str]:
    """Text of every file that a module needs, by file name.

    Raises:
        ClosureError: A file has an import that is not understood, or two have one name.
    """
    files: dict[str, str] = {}
    modules, waiting = {root}, [root]
    while waiting:
        module = waiting.pop()
        text, needed = rewrite(_read(module), module)
        name = f"{sibling(module)}.py"
        if name in files:
            raise ClosureError(f"{name}: two modules would have this name")
        origin = f"# {module.replace('.', '/')}.py of version {idlm_ds.__version__}."
        files[name] = f"{origin} SPDX-License-Identifier: MIT\n{text}"
        waiting += sorted(needed - modules)
        modules |= needed
    files[f"{sibling(root)}.py"] += _named(sorted(sibling(module) for module in modules - {root}))
    return dict(sorted(files.items()))


def _named(siblings: Iterable[str]) -> str:
    """Lines that make a loader see all files, although it may look into the first one only.

    Transformers 4 copies what the model's own file names in an import statement, wherever that
    stands, and leaves out what those files import in turn.
    """
    lines = [f"    from .{name} import __doc__" for name in siblings]
    return "\n".join(
        ["\n\nif False:  # for transformers 4, which copies what is named here", *lines, ""]
    )


def sibling(module: str) -> str:
    """Name of a module of this package in a folder without subfolders."""
    if module.startswith(WRAPPERS):
        return module.removeprefix(WRAPPERS)
    return module.removeprefix(f"{PACKAGE}.").replace(".", "_")


def rewrite(source: str, module: str) -> tuple[str, set[str]]:
    """Change a module's imports and entry points; also return the modules that it needs.

    Raises:
        ClosureError: An import or entry point is not understood.
    """
    encoded = source.encode()
    starts = [0]
    for line in encoded.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    needed, edits = set(), []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Import | ast.ImportFrom) or _is_entry_point(node)):
            continue
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        try:
            target, text = _rewritten(node, encoded[start:end])
        except ClosureError as error:
            raise ClosureError(f"{module}, line {node.lineno}: {error}") from error
        needed.update([target] if target else [])
        edits.append((start, end, text))
    for start, end, text in sorted(edits, reverse=True):
        encoded = encoded[:start] + text + encoded[end:]
    return encoded.decode(), needed


def _is_entry_point(node: ast.AST) -> TypeGuard[ast.Constant]:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return False
    return _ENTRY_POINT.fullmatch(node.value) is not None


def _rewritten(
    node: ast.Import | ast.ImportFrom | ast.Constant, source: bytes
) -> tuple[str | None, bytes]:
    """Return the module of this package that is needed, and what the source becomes."""
    if isinstance(node, ast.Constant):
        return _entry(node.value, source)
    if isinstance(node, ast.Import):
        if foreign := [alias.name for alias in node.names if _top(alias.name) not in PROVIDED]:
            raise ClosureError(f"import {foreign[0]}: only from ... import ... can be exported")
        return None, source
    if node.level or node.module is None:
        raise ClosureError("a relative import cannot be exported")
    if any(alias.name == "*" for alias in node.names):
        raise ClosureError(f"from {node.module} import *: names must be listed")
    if _top(node.module) in PROVIDED:
        return None, source
    if _top(node.module) in OPTIONAL and node.col_offset:
        return None, _looked_up(node.module, node.names)
    return _own(_source_of(node.module), node.module, source)


def _source_of(module: str) -> str:
    """Return the module that is exported for an import: of an operator, its plain form."""
    if module.startswith(OPERATORS) and _is_file(f"{module}.reference"):
        return f"{module}.reference"
    return STAND_INS.get(module, module)


def _entry(value: Any, source: bytes) -> tuple[str, bytes]:
    target, _, name = str(value).partition(":")
    if source != f'"{value}"'.encode() or not _is_file(target):
        raise ClosureError(f"{value}: it is no entry point in a file of this package")
    return target, f'".{sibling(target)}:{name}"'.encode()


def _looked_up(module: str, names: list[ast.alias]) -> bytes:
    """Write an import inside a function as a call."""
    parts = [
        f"{a.asname or a.name} = __import__({module!r}, fromlist=[{a.name!r}]).{a.name}"
        for a in names
    ]
    return "; ".join(parts).encode()


def _own(target: str, written: str, statement: bytes) -> tuple[str, bytes]:
    match = _IMPORT_FROM.match(statement)
    if _top(target) != PACKAGE:
        raise ClosureError(f"from {written} import ...: it is not there where the code runs")
    if match is None or match[1].decode() != written or not _is_file(target):
        raise ClosureError(f"from {written} import ...: it is no file of this package")
    return target, b"from ." + sibling(target).encode() + statement[match.end(1) :]


def _top(module: str) -> str:
    return module.partition(".")[0]


def _path(module: str) -> Path:
    return Path(idlm_ds.__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")


def _is_file(module: str) -> bool:
    return _path(module).is_file()


def _read(module: str) -> str:
    return _path(module).read_text("utf-8")
