"""Figures of the laboratory as a table, for a terminal and in Markdown."""

import math
from collections.abc import Sequence

from idlm_ds.laboratory.rows import Finding, TableEntry, cells

NOTES = {
    "DCD": {
        "pairs": "a method of uniform families, whose chains here have 8^8 states: too many to sum",
        "latin": "a method of uniform families, whose chains here have 3^9 states: minutes to sum",
    }
}
"""Why a line has no figures in a language."""


def heading(figures: Sequence[Finding], language: str) -> str:
    """Describe what is in a language's table."""
    count = len({figure.seed for figure in figures if figure.seed is not None})
    return (
        f"{language}: KL(truth | law) of a sentence in nats, and the share of draws that are "
        f"sentences; mean over {count} seed{'s' * (count != 1)}"
    )


def to_text(figures: Sequence[Finding], language: str) -> str:
    """Lay out the figures of a language for a terminal."""
    rows = _rows(figures, language)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    lines = [
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([heading(figures, language), *lines, *_notes(figures, language)])


def to_markdown(figures: Sequence[Finding], language: str) -> str:
    """Lay out the figures of a language as a Markdown table."""
    head, *body = _rows(figures, language)
    rule = ["---", *["---:"] * (len(head) - 1)]
    lines = ["| " + " | ".join(row) + " |" for row in (head, rule, *body)]
    return "\n".join([heading(figures, language) + ".", "", *lines, *_notes(figures, language)])


def _rows(figures: Sequence[Finding], language: str) -> list[list[str]]:
    table = cells(figures, language)
    steps = sorted({count for by_steps in table.values() for count in by_steps})
    head = ["steps", *map(str, steps)]
    return [head] + [
        [line, *(_shown(by_steps.get(count)) for count in steps)]
        for line, by_steps in table.items()
    ]


def _shown(found: TableEntry | None) -> str:
    if found is None:
        return "-"
    if not math.isfinite(found.kl):
        return "infinite"
    spread = f" ± {found.spread:.3f}" if found.spread >= 0.0005 else ""
    mass = "" if found.mass is None else f" ({100 * found.mass:.0f}%)"
    return f"{found.kl:.3f}{spread}{mass}"


def _notes(figures: Sequence[Finding], language: str) -> list[str]:
    known = cells(figures, language)
    return [
        f"{line}: {notes[language]}."
        for line, notes in NOTES.items()
        if language in notes and line not in known
    ]
