"""Values of the configurations of published models, and what they say of a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from idlm_ds.checkpoints.pickle_reader.allowed import Inert
from idlm_ds.errors import UserError
from idlm_ds.registry.families import is_masked, sees_time

MAX_BLOCKS, MAX_INTEGER = 1000, 2**31

BERT_VOCABULARY, BERT_MASK = 30_522, 103


def default_mask(vocab_size: int) -> int:
    """Return the mask's id where nothing states it."""
    return BERT_MASK if vocab_size == BERT_VOCABULARY else vocab_size - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Stated:
    """What a configuration states; what it does not is left out, or None."""

    family: str | None = None
    process: Mapping[str, Any] = field(default_factory=dict)
    """Schedule and other settings of the family, as this package calls them."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, float] = field(default_factory=dict)
    """Other arguments of the network."""

    time_conditioning: bool | None = None
    length: int | None = None
    mask_id: int | None = None

    def mask(self, vocab_size: int) -> int | None:
        """Return the mask's id, where the family has one."""
        if self.mask_id is not None or not is_masked(self.family):
            return self.mask_id
        return default_mask(vocab_size)

    def sees_time(self) -> bool | None:
        """Whether the network is conditioned on the noise level, as stated or as its family is."""
        return sees_time(self.family) if self.time_conditioning is None else self.time_conditioning


class Reader:
    """Values of a nested configuration, JSON or from a pickle, by dotted path."""

    def __init__(self, label: str, tree: Any) -> None:
        self.label = label
        self._tree = tree

    def value(self, path: str) -> Any:
        """Read the value at a dotted path; None where there is none or only a reference."""
        node = self._tree
        for key in path.split("."):
            node = _entries(node).get(key)
        node = _bare(node)
        return None if isinstance(node, str) and node.startswith(("${", "???")) else node

    def integer(self, path: str, most: int = MAX_INTEGER, least: int = 1) -> int | None:
        """Read an integer, by default a positive one.

        Raises:
            UserError: Something else is there.
        """
        value = self.value(path)
        if value is None or (type(value) is int and least <= value <= most):
            return value
        raise UserError(f"{self.label}: {path} is no integer between {least} and {most}")

    def number(self, path: str) -> float | None:
        """Read a number that is not negative.

        Raises:
            UserError: Something else is there.
        """
        value = self.value(path)
        if value is None or (type(value) in (int, float) and 0 <= value < 2**31):
            return value
        raise UserError(f"{self.label}: {path} is no number from 0")

    def flag(self, path: str) -> bool | None:
        """Read a flag.

        Raises:
            UserError: Something else is there.
        """
        value = self.value(path)
        if value is None or isinstance(value, bool):
            return value
        raise UserError(f"{self.label}: {path} is neither true nor false")

    def text(self, path: str) -> str:
        """Text, empty where there is none."""
        value = self.value(path)
        return value if isinstance(value, str) else ""

    def integers(self, **paths: str) -> dict[str, int]:
        """Those that are there, under other names."""
        most, least = {"blocks": MAX_BLOCKS}, {"latent": 0}
        values = {
            name: self.integer(path, most.get(name, MAX_INTEGER), least.get(name, 1))
            for name, path in paths.items()
        }
        return stated_only(**values)

    def numbers(self, **paths: str) -> dict[str, float]:
        """Those that are there, under other names."""
        return stated_only(**{name: self.number(path) for name, path in paths.items()})

    def family(self) -> str | None:
        """Read the family that this package's section ``process`` names."""
        family = self.text("process.name")
        return family if family.isidentifier() else None

    def process(self, root: str = "") -> dict[str, Any]:
        """Read this package's section ``process``; empty where there is none."""
        settings = self.value(f"{root}process")
        return dict(settings) if isinstance(settings, dict) else {}


def _bare(node: Any) -> Any:
    # A value of OmegaConf.
    state = node.state if isinstance(node, Inert) else None
    return state.get("_val", node) if isinstance(state, dict) else node


def _entries(node: Any) -> Mapping[Any, Any]:
    if isinstance(node, Inert):
        # A dictionary of OmegaConf, or any class derived from ``dict``.
        content = node.state.get("_content") if isinstance(node.state, dict) else None
        return content if isinstance(content, dict) else node.entries
    return node if isinstance(node, dict) else {}


def stated_only(**fields: Any) -> dict[str, Any]:
    """Fields that are not None."""
    return {key: value for key, value in fields.items() if value is not None}
