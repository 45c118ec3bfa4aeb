"""Undo the tokenization of corpora that are published as separated words."""

import re
from collections.abc import Callable

_LM1B: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), to)
    for pattern, to in (
        (r"http : / / ", "http://"),
        (r"https : / / ", "https://"),
        (r" '(\w+)", r"'\1"),
        (r" (\w+) \. ", r" \1. "),
        (r" (\w+) \.$", r" \1."),
        (r" \? ", "? "),
        (r" \?$", "?"),
        (r" ! ", "! "),
        (r" !$", "!"),
        (r" , ", ", "),
        (r" : ", ": "),
        (r" ; ", "; "),
        (r" / ", "/"),
        (r'" ([^"]+) "', r'"\1"'),
        (r"' ([^']+) '", r"'\1'"),
        (r"\( ([^()]+) \)", r"(\1)"),
        (r"\[ ([^\[\]]+) \]", r"[\1]"),
        (r"\$ ", "$"),
        (r"£ ", "£"),
    )
)


def lm1b(text: str) -> str:
    """Rejoin what LM1B separates: links, clitics, punctuation, brackets, currency signs.

    The rules apply one after another, in the order used for the data of public models.
    """
    for pattern, to in _LM1B:
        text = pattern.sub(to, text)
    return text


DETOKENIZERS: dict[str, Callable[[str], str]] = {"lm1b": lm1b}
