"""Kinds of values a DeepSpeed file may hold, and what a row of the table of its fields says.

Plain values: nothing but the standard library is imported.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

LONGEST = 40
"""Characters of a user's value or name that a message shows."""


def shown(value: object) -> str:
    """Return a value as printable text of at most ``LONGEST`` characters."""
    try:
        text = ascii(value)
    except RecursionError:
        return "a deeply nested value"
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


class Value(ABC):
    """What a field may be."""

    @property
    @abstractmethod
    def rule(self) -> str:
        """What is allowed, to follow "must be"."""

    @abstractmethod
    def read(self, raw: object) -> Any:
        """Return the value to hand on.

        Raises:
            ValueError: ``raw`` is no such value.
        """


@final
@dataclass(frozen=True, slots=True)
class Flag(Value):
    """A boolean, not a number."""

    @property
    def rule(self) -> str:
        """See base class."""
        return "true or false"

    def read(self, raw: object) -> bool:
        """See base class."""
        if not isinstance(raw, bool):
            raise ValueError
        return raw


@final
@dataclass(frozen=True, slots=True)
class Whole(Value):
    """A whole number, also written like ``5e8``; no boolean, no text."""

    least: int
    multiple: int = 1
    most: int = 10**15

    @property
    def rule(self) -> str:
        """See base class."""
        kind = "an even number" if self.multiple == 2 else "a whole number"
        return f"{kind} from {self.least} to {self.most:g}".replace("e+", "e")

    def read(self, raw: object) -> int:
        """See base class."""
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            raise ValueError
        if isinstance(raw, float) and not raw.is_integer():
            raise ValueError
        value = int(raw)
        if value % self.multiple or not self.least <= value <= self.most:
            raise ValueError
        return value


@final
@dataclass(frozen=True, slots=True)
class Word(Value):
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def rule(self) -> str:
        """See base class."""
        return " or ".join(self.words)

    def read(self, raw: object) -> str:
        """See base class."""
        if not isinstance(raw, str) or raw not in self.words:
            raise ValueError
        return raw


@dataclass(frozen=True, slots=True)
class Works:
    """A field that is handed on to DeepSpeed."""

    value: Value
    does: str
    """What it does, for the documentation."""

    stages: tuple[int, ...] = (1, 2, 3)
    """ZeRO stages at which it does something; at others it is refused."""

    why: str = ""
    """Why nothing else is allowed, where that needs saying."""


@dataclass(frozen=True, slots=True)
class Ours:
    """A field, or a whole section, that the recipe decides."""

    key: str
    """The recipe's key."""

    may_repeat: bool = False
    """Whether the file may say what the recipe says; it never decides."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A field, or a whole section, that a file may not have."""

    reason: str


Row = Works | Ours | Rejected
