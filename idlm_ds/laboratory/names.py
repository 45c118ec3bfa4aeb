"""Names that users of the laboratory type."""

from typing import Literal, TypeAlias

LanguageName: TypeAlias = Literal["pairs", "copy", "shuffle", "latin", "markov"]
