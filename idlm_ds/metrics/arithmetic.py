"""Evaluate short arithmetic programs without executing them.

Solutions of TinyGSM are Python functions. Their text is parsed and a small subset of Python is
interpreted: straight-line assignments to names, ``return``, numbers, ``+ - * / // % **`` and the
functions below. A program with anything else (a loop, a condition, an import, a string) or with a
number out of bounds has no value; nothing that a model wrote is ever executed.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

Number = int | float

LARGEST = 1e15
"""Limit of absolute values, so that a power cannot exhaust time and memory."""

MOST_DIGITS = 15
"""Limit of the second argument of ``round``, on either side of the point."""

OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "ceil": math.ceil,
    "float": float,
    "floor": math.floor,
    "int": int,
    "max": max,
    "min": min,
    "round": lambda value, digits=0: round(value, _checked(digits, MOST_DIGITS)),
}


class _UnsupportedError(Exception):
    """The program is outside the subset."""


def is_program(text: str) -> bool:
    """Tell whether a text defines a function."""
    return any(line.startswith("def ") for line in text.splitlines())


def evaluate(text: str) -> Number | None:
    """Compute the return value of the first function in a text; None if that is impossible.

    Text after its first ``return`` is ignored.
    """
    try:
        return _run(_body(text))
    except (_UnsupportedError, ValueError, TypeError, ArithmeticError):
        return None
    except (RecursionError, MemoryError):  # raised by the parser for thousands of brackets
        return None


def _body(text: str) -> list[ast.stmt]:
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("def "))
    # Take the shortest text up to a return that parses: what follows may be cut or nonsense.
    ends = [i + 1 for i, line in enumerate(lines) if line.strip().startswith("return")]
    for end in [*ends, len(lines)]:
        match _parsed("\n".join(lines[first:end])):
            case [ast.FunctionDef(body=body)]:
                return body
    raise _UnsupportedError


def _parsed(text: str) -> list[ast.stmt]:
    try:
        return ast.parse(text).body
    except SyntaxError:
        return []


def _run(statements: list[ast.stmt]) -> Number | None:
    names: dict[str, Number] = {}
    for statement in statements:
        match statement:
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.Return(value=ast.expr() as value):
                return _value(value, names)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names[name] = _value(value, names)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                names[name] = _value(value, names)
            case ast.AugAssign(target=ast.Name(id=name) as old, op=op, value=value):
                names[name] = _value(ast.BinOp(ast.Name(old.id), op, value), names)
            case _:
                raise _UnsupportedError
    return None


def _value(node: ast.expr, names: Mapping[str, Number]) -> Number:
    match node:
        case ast.Constant(value=number):
            return _checked(number)
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.BinOp(left=left, op=op, right=right):
            return _checked(_operate(op, _value(left, names), _value(right, names)))
        case ast.Call(func=func, args=args, keywords=[]):
            return _checked(_function(func)(*(_value(arg, names) for arg in args)))
        case _:
            raise _UnsupportedError


def _operate(op: ast.operator, left: Number, right: Number) -> Any:
    if isinstance(op, ast.Pow):
        if left and abs(right) * math.log(max(abs(left), 1)) > math.log(LARGEST) + 1e-9:
            raise _UnsupportedError
        return left**right
    if type(op) not in OPERATORS:
        raise _UnsupportedError
    return OPERATORS[type(op)](left, right)


def _function(node: ast.expr) -> Callable[..., Any]:
    match node:
        case ast.Name(id=name) if name in FUNCTIONS:
            return FUNCTIONS[name]
        case ast.Attribute(value=ast.Name(id="math"), attr=name) if name in ("ceil", "floor"):
            return FUNCTIONS[name]
        case _:
            raise _UnsupportedError


def _checked(value: Any, largest: Number = LARGEST) -> Any:
    if type(value) not in (int, float) or not abs(value) <= largest:
        raise _UnsupportedError
    return value
