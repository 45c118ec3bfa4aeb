"""Rows of an evaluation, as data and as tables."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from idlm_ds.evaluation.store import write_json
from idlm_ds.files import write_atomic

RESULTS = "results.json"

Row = Mapping[str, Any]
"""Flat: settings, then figures; the standard error of ``x`` is ``x_se``, its spread ``x_std``."""

SHOWN = {
    "model": "model",
    "sampler": "sampler",
    "precision": "precision",
    "steps": "steps",
    "nfe": "NFE",
    "temperature": "T",
    "nucleus": "top-p",
    "seeds": "seeds",
    "num_samples": "samples",
    "judge": "judge",
    "masking": "scored",
    "gen_ppl": "GenPPL",
    "entropy": "entropy (nats)",
    "distinct_2": "distinct-2",
    "repetition": "repetition",
    "self_bleu": "self-BLEU",
    "mauve": "MAUVE",
    "gm": "GM",
    "seconds": "seconds",
    "tokens_per_s": "tokens/s",
}
"""Columns people see, and their headings; all others are in the files."""


def write_results(folder: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> None:
    """Write ``results.json``, ``results.csv`` and ``results.md``."""
    write_json(folder / RESULTS, {"settings": dict(settings), "rows": [dict(r) for r in rows]})
    write_atomic(folder / "results.csv", to_csv(rows).encode())
    lines = [f"- {key}: {value}" for key, value in settings.items()]
    page = "\n".join([to_markdown(rows), "", *lines, ""])
    write_atomic(folder / "results.md", page.encode())


def to_csv(rows: Sequence[Row]) -> str:
    """All columns of all rows."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def to_markdown(rows: Sequence[Row], columns: Mapping[str, str] = SHOWN) -> str:
    """A Markdown table of the columns that some row has."""
    head, body = table(rows, columns)
    ruled = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body)]
    return "\n".join(ruled)


def to_text(rows: Sequence[Row], columns: Mapping[str, str] = SHOWN) -> str:
    """An aligned table for a terminal."""
    head, body = table(rows, columns)
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    rule = ["-" * width for width in widths]
    lines = (zip(cells, widths, strict=True) for cells in (head, rule, *body))
    return "\n".join("  ".join(c.ljust(w) for c, w in line).rstrip() for line in lines)


def table(rows: Sequence[Row], columns: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the columns that some row has."""
    used = [key for key in columns if any(row.get(key) is not None for row in rows)]
    return [columns[key] for key in used], [[_cell(row, key) for key in used] for row in rows]


def _cell(row: Row, key: str) -> str:
    value, error = row.get(key), row.get(f"{key}_se", row.get(f"{key}_std"))
    if value is None:
        return "-"
    if not isinstance(value, float):
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    is_spread = f"{key}_se" in row or f"{key}_std" in row
    return with_error(value, error) if is_spread else f"{value:.4g}"


def with_error(value: float, error: float | None) -> str:
    """A figure to the second digit of its standard error."""
    if error is None or not math.isfinite(error):
        return f"{value:.4g} ± ?"
    decimals = 3 if error <= 0 else min(max(1 - math.floor(math.log10(error)), 0), 6)
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"
