"""Stands in for jaxtyping: the array type of an annotation, without its shape."""

from typing import Any


class Shaped:
    """``Shaped[Tensor, "B L"]`` is ``Tensor``."""

    def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
        return item[0]


Bool = Float = Float64 = Int = Shaped
