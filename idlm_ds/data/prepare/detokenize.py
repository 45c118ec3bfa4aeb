"""Text that was taken apart into words, put together again."""

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
    """Join what LM1B sets apart: links, clitics, marks, brackets, signs of money.

    The rules are applied one after another, in the order in which public models' data had them.
    """
    for pattern, to in _LM1B:
        text = pattern.sub(to, text)
    return text


DETOKENIZERS: dict[str, Callable[[str], str]] = {"lm1b": lm1b}
