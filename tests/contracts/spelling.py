"""Finds the names of the registry where they are spelled again."""

import ast
from collections.abc import Collection


def spelled(source: str, names: Collection[str]) -> list[tuple[int, str]]:
    """Line and name of every string constant that is one of ``names``, docstrings excluded."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    ]
    return sorted((node.lineno, str(node.value)) for node in constants if node.value in names)
