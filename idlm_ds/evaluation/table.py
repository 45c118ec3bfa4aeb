"""Rows of results as files and as tables."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from idlm_ds.evaluation.row import Row
from idlm_ds.evaluation.store import write_text

COLUMNS = {
    "model": "model",
    "sampler": "sampler",
    "precision": "precision",
    "steps": "steps",
    "nfe": "NFE",
    "temperature": "T",
    "nucleus": "top-p",
    "latent": "latent",
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


def write_rows(path: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> None:
    """Write rows and what they share as JSON, in the one layout ``compare`` reads."""
    content = {"settings": dict(settings), "rows": [dict(row) for row in rows]}
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_results(folder: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> None:
    """Write ``results.json``, ``results.csv`` and ``results.md``."""
    write_rows(folder / "results.json", rows, settings)
    write_text(folder / "results.csv", to_csv(rows))
    lines = [f"- {key}: {value}" for key, value in settings.items()]
    write_text(folder / "results.md", "\n".join([to_markdown(rows), "", *lines, ""]))


def to_csv(rows: Sequence[Row]) -> str:
    """All columns of all rows."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def to_markdown(rows: Sequence[Row], columns: Mapping[str, str] = COLUMNS) -> str:
    """Lay out a Markdown table of the columns that some row has."""
    used = _used(rows, columns)
    rule = ["---:" if _is_number(rows, key) else "---" for key in used]
    body = [[_cell(row, key) for key in used] for row in rows]
    lines = ([columns[key] for key in used], rule, *body)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def to_text(rows: Sequence[Row], columns: Mapping[str, str] = COLUMNS) -> str:
    """Lay out an aligned table for a terminal; text on the left, numbers on the right."""
    laid_out = []
    for key in _used(rows, columns):
        cells = [columns[key], *(_cell(row, key) for row in rows)]
        width = max(map(len, cells))
        cells.insert(1, "-" * width)
        is_number = _is_number(rows, key)
        laid_out.append([c.rjust(width) if is_number else c.ljust(width) for c in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*laid_out, strict=True))


def value_with_error(value: float, error: float | None) -> str:
    """Round a figure to the second digit of its standard error."""
    if error is None or not math.isfinite(error):
        return f"{value:.4g} ± ?"
    decimals = 3 if error <= 0 else min(max(1 - math.floor(math.log10(error)), 0), 6)
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _used(rows: Sequence[Row], columns: Mapping[str, str]) -> list[str]:
    return [key for key in columns if any(row.get(key) is not None for row in rows)]


def _is_number(rows: Sequence[Row], key: str) -> bool:
    return all(isinstance(row.get(key), int | float | None) for row in rows)


def _cell(row: Row, key: str) -> str:
    value = row.get(key)
    if value is None:
        return "-"
    if not isinstance(value, float):
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if f"{key}_se" not in row and f"{key}_std" not in row:
        return f"{value:.4g}"
    return value_with_error(value, row.get(f"{key}_se", row.get(f"{key}_std")))
