"""What every section of a recipe can do: say which key is out of range."""

from typing import ClassVar

from idlm_ds.recipes.errors import RecipeError


class Section:
    """A part of a recipe that knows the key it stands under."""

    __slots__ = ()
    prefix: ClassVar[str] = ""

    def _require(self, field: str, holds: bool, rule: str) -> None:
        if not holds:
            key = f"{self.prefix}.{field}" if self.prefix else field
            raise RecipeError(f"{key}: must be {rule}, got {getattr(self, field)!r}")

    def _require_at_least(self, least: int, *fields: str) -> None:
        for field in fields:
            self._require(field, getattr(self, field) >= least, f"at least {least}")

    def _require_text(self, *fields: str) -> None:
        for field in fields:
            self._require(field, bool(getattr(self, field).strip()), "non-empty text")
