"""The one error a user of recipes meets."""

from idlm_ds.errors import UserError

_LONGEST = 200


def shorten(text: str, limit: int = 60) -> str:
    """Cut ``text`` to ``limit`` characters, the last of them an ellipsis where it was longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


class RecipeError(UserError):
    """A recipe that cannot be used, said in one printable line of at most 200 characters.

    Where the fault lies with a key, the line starts with ``dotted.key: ``.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        line = "".join(char if char.isprintable() else "?" for char in line)
        super().__init__(shorten(line, _LONGEST))
