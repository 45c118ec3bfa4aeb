"""A reader of pickles that executes nothing.

``pickletools`` parses the stream; the machine below moves plain values on a stack. It has no
instruction that imports, looks up or calls, and no attribute of any object is ever set or read by
name. ``allowed.py`` decides what replaces the names in the stream.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from idlm_ds.checkpoints.pickle_reader.allowed import (
    Global,
    Inert,
    Refused,
    admit,
    construct,
    storage,
    usable_key,
)

MAX_OPCODES = 5_000_000

NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
PYTHON_2_TEXT = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
TEXT = {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
VALUES = frozenset(NUMBERS | PYTHON_2_TEXT | TEXT | BYTES)
"""Opcodes that carry their value."""

IGNORED = frozenset({"PROTO", "FRAME"})

SET, FROZEN_SET = Global("builtins", "set"), Global("builtins", "frozenset")


class Machine:
    """A stack, the parts of it below each mark, and the memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        """Put a value on top."""
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark."""
        taken, self.stack = self.stack, self.below.pop()
        return taken

    def mark(self) -> None:
        """Remember where the stack stands."""
        self.below.append(self.stack)
        self.stack = []

    def group(self, count: int) -> None:
        """Make one tuple of the topmost values."""
        if len(self.stack) < count:
            raise IndexError("stack underflow")
        grouped = tuple(self.stack[-count:])
        self.stack[-count:] = [grouped]

    def extend(self, values: list[Any]) -> None:
        """Append to the list, or record of a list, on top."""
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.items.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise Refused("its pickle appends to what is not a list")

    def update(self, values: list[Any]) -> None:
        """Enter alternating keys and values into the dictionary, or record of one, on top."""
        target = self.stack[-1]
        entries = target.entries if isinstance(target, Inert) else target
        if not isinstance(entries, dict):
            raise Refused("its pickle sets an item of what is not a dictionary")
        entries.update(_pairs(values))

    def build(self) -> None:
        """Store the state of a record; that of a dictionary is an attribute, and dropped."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif not (isinstance(target, dict) and isinstance(state, dict)):
            raise Refused("its pickle gives a state to what has none")

    def call(self) -> None:
        """Replace a name and its arguments by a stand-in for their result."""
        arguments, called = self.stack.pop(), self.stack.pop()
        self.push(construct(called, arguments))

    def call_with_keywords(self) -> None:
        """Read the same with keywords, which are dropped."""
        self.stack.pop()
        self.call()

    def name(self) -> None:
        """Replace two strings by the name they make."""
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Refused("its pickle names something by what is not text")
        self.push(admit(module, name))


def _pairs(values: list[Any]) -> dict[Any, Any]:
    keys = [usable_key(key) for key in values[::2]]
    return dict(zip(keys, values[1::2], strict=True))


Step = Callable[[Machine, Any], object]

STEPS: Mapping[str, Step] = {
    # Constants.
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_SET": lambda m, _: m.push(Inert(SET)),
    # The stack and the memo.
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.stack.pop() if m.stack else m.since_mark(),
    "POP_MARK": lambda m, _: m.since_mark(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    "GET": lambda m, index: m.push(m.memo[index]),
    "BINGET": lambda m, index: m.push(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.push(m.memo[index]),
    "PUT": lambda m, index: m.memo.update({index: m.stack[-1]}),
    "BINPUT": lambda m, index: m.memo.update({index: m.stack[-1]}),
    "LONG_BINPUT": lambda m, index: m.memo.update({index: m.stack[-1]}),
    "MEMOIZE": lambda m, _: m.memo.update({len(m.memo): m.stack[-1]}),
    # Containers.
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.group(1),
    "TUPLE2": lambda m, _: m.group(2),
    "TUPLE3": lambda m, _: m.group(3),
    "LIST": lambda m, _: m.push(m.since_mark()),
    "DICT": lambda m, _: m.push(_pairs(m.since_mark())),
    "FROZENSET": lambda m, _: m.push(Inert(FROZEN_SET, tuple(m.since_mark()))),
    "APPEND": lambda m, _: m.extend([m.stack.pop()]),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "ADDITEMS": lambda m, _: m.extend(m.since_mark()),
    "SETITEM": lambda m, _: m.update([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m, _: m.update(m.since_mark()),
    # Names and calls.
    "GLOBAL": lambda m, names: m.push(admit(*names.split(" ", 1))),
    "STACK_GLOBAL": lambda m, _: m.name(),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.call(),
    "NEWOBJ_EX": lambda m, _: m.call_with_keywords(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.push(storage(m.stack.pop())),
}
"""INST, OBJ, EXT1, EXT2, EXT4, PERSID and out-of-band buffers are not among them: no file of
weights has them."""


def unpickle(stream: bytes) -> Any:
    """Read what a pickle describes.

    Raises:
        Refused: It asks for what no file of weights needs.
        ValueError: It is damaged.
    """
    machine = Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if opcode.name == "STOP":
                return machine.stack.pop()
            if count > MAX_OPCODES:
                raise ValueError("its pickle is too long")
            _step(machine, opcode.name, argument)
    except (IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"its pickle is damaged: {type(error).__name__}") from error
    raise ValueError("its pickle has no end")


def _step(machine: Machine, opcode: str, argument: Any) -> None:
    if opcode in VALUES:
        machine.push(argument)
    elif opcode in STEPS:
        STEPS[opcode](machine, argument)
    elif opcode not in IGNORED:
        raise Refused(f"its pickle has the instruction {opcode}")
