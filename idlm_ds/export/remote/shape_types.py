"""Stands in for jaxtyping: the array type of an annotation, without its shape."""

from typing import Any


class Float:
    """``Float[Tensor, "B L"]`` is ``Tensor``."""

    def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
        return item[0]


class Int(Float):
    """``Int[Tensor, "B L"]`` is ``Tensor``."""


class Bool(Float):
    """``Bool[Tensor, "B L"]`` is ``Tensor``."""
