"""Several files of results side by side, with differences and whether they exceed the noise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from idlm_ds.errors import UserError
from idlm_ds.evaluation.row import Row
from idlm_ds.evaluation.store import read_json
from idlm_ds.evaluation.table import value_with_error

SETTINGS = (
    "model",
    "family",
    "sampler",
    "precision",
    "steps",
    "temperature",
    "nucleus",
    "latent",
    "num_samples",
    "length",
    "judge",
    "masking",
)
"""Settings in which two rows must agree to be compared."""

STANDARD_ERRORS = 2.0
"""Standard errors above which a difference counts as more than noise."""


Figure: TypeAlias = tuple[float, float | None]
"""A value and its standard error, where that is known."""


@dataclass(frozen=True, slots=True)
class ResultFile:
    """The rows of one file and what to call it."""

    name: str
    rows: Sequence[Row]


def read_results(path: Path) -> ResultFile:
    """Read ``results.json`` of an evaluation or ``report.json`` of a run, or the folder of either.

    Raises:
        UserError: There is no such file, or it holds no rows.
    """
    file = path
    if path.is_dir():
        names = ("results.json", "report.json")
        file = next((path / name for name in names if (path / name).is_file()), path / names[0])
    rows = read_json(file).get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{file}: holds no rows of results")
    return ResultFile(path.name or str(path), rows)


def compare(
    files: Sequence[ResultFile], metrics: Sequence[str], *, ignore: Sequence[str]
) -> list[Row]:
    """One row for every setting and metric: the figure of each file, and differences to the first.

    The settings in ``ignore`` may differ. The standard error of a metric is its column ``_se``.

    Raises:
        UserError: A setting occurs twice in one file, or no file has a metric.
    """
    keys = [key for key in SETTINGS if key not in ignore]
    tables = [_by_setting(file, keys) for file in files]
    for metric in metrics:
        if not any(metric in row for file in files for row in file.rows):
            raise UserError(f"--metric: no file has {metric!r}")
    compared: list[Row] = []
    for setting in dict.fromkeys(setting for table in tables for setting in table):
        rows = [table.get(setting, {}) for table in tables]
        shared = dict(zip(keys, setting, strict=True))
        for metric in metrics:
            if any(metric in row for row in rows):
                figures = [_figure(row, metric) for row in rows]
                compared.append({**shared, "metric": metric, **_compared(files, figures)})
    return compared


def _by_setting(file: ResultFile, keys: Sequence[str]) -> dict[tuple[Any, ...], Row]:
    rows: dict[tuple[Any, ...], Row] = {}
    for row in file.rows:
        setting = tuple(row.get(key) for key in keys)
        if setting in rows:
            shared = ", ".join(f"{k}={v}" for k, v in zip(keys, setting, strict=True))
            raise UserError(f"{file.name}: two rows of {shared}; --ignore fewer settings")
        rows[setting] = row
    return rows


def _compared(files: Sequence[ResultFile], figures: Sequence[Figure | None]) -> Row:
    compared: dict[str, str | None] = {}
    for file, figure in zip(files, figures, strict=True):
        compared[file.name] = None if figure is None else value_with_error(*figure)
    for file, figure in zip(files[1:], figures[1:], strict=True):
        compared[f"{file.name} - {files[0].name}"] = _difference(figures[0], figure)
    return compared


def _figure(row: Row, metric: str) -> Figure | None:
    value, error = row.get(metric), row.get(f"{metric}_se")
    if not isinstance(value, int | float):
        return None
    return float(value), float(error) if isinstance(error, int | float) else None


def _difference(first: Figure | None, other: Figure | None) -> str | None:
    if first is None or other is None:
        return None
    difference = other[0] - first[0]
    if first[1] is None or other[1] is None:
        return f"{difference:+.4g} (noise unknown)"
    error = math.hypot(first[1], other[1])
    is_more = abs(difference) > STANDARD_ERRORS * error
    return f"{difference:+.4g} ± {error:.2g} ({'differs' if is_more else 'within noise'})"


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Headings of the columns in which some row has a value."""
    names = dict.fromkeys(key for row in rows for key in row)
    return {name: name for name in names if any(row.get(name) is not None for row in rows)}
