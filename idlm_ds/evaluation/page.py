"""A folder of results: figures for programs, a page and a picture for people."""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from idlm_ds.evaluation.figure import draw_frontier
from idlm_ds.evaluation.row import Row
from idlm_ds.files import write_atomic

__all__ = ["Row", "format_table", "write_report"]

_HEADER = (
    "model",
    "steps",
    "NFE",
    "GenPPL",
    "entropy (nats)",
    "distinct-2",
    "temperature",
    "seconds",
    "samples",
)
_TEXTS_SHOWN = 3
_CHARACTERS_SHOWN = 700

_GUIDE = """\
## How to read this

- **GenPPL** is the perplexity of the samples under the judge, token-weighted; ± is one standard
  error over sequences. Lower is more predictable, not by itself better: dull or repetitive text
  scores low.
- **Entropy** is the unigram entropy within a sequence, in nats. Read the two together. A fair win
  is a lower GenPPL at an entropy no lower.
- **held-out** is real text under the same judge: what both columns should come near to, from
  either side.
- **teacher (matched)** is the teacher set to reach the student's entropy, so its GenPPL may be
  compared with the student's directly.
- **distinct-2** falls as text is added: compare it at equal sample count and length only.
- Figures under different judges do not compare.
"""


def format_table(rows: Sequence[Row]) -> str:
    """Lay the rows out as aligned plain text; text columns left, numbers right."""
    lines = [_HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADER))]
    laid = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([laid[0], rule, *laid[1:]])


def write_report(
    folder: Path,
    rows: Sequence[Row],
    *,
    title: str,
    settings: Mapping[str, str],
    samples: Mapping[str, Sequence[str]],
) -> None:
    """Write ``report.json``, ``report.md`` and ``frontier.png``, each whole or not at all.

    ``samples`` maps a heading to texts; the page shows the first few, shortened. In the JSON
    a standard error that is not known is null.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("write_report: no rows")
    content = {"settings": dict(settings), "rows": [row.to_json() for row in rows]}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / "report.json", (text + "\n").encode())
    draw_frontier(rows, folder / "frontier.png")
    write_atomic(folder / "report.md", _page(rows, title, settings, samples).encode())


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.display_name,
        "-" if row.steps is None else str(row.steps),
        "-" if row.nfe is None else f"{row.nfe:.1f}",
        _with_error(row.gen_ppl, row.gen_ppl_se),
        _with_error(row.entropy, row.entropy_se, least=2),
        f"{row.distinct_2:.3f}",
        "-" if row.steps is None else f"{row.temperature:.3f}",
        "-" if row.seconds is None else f"{row.seconds:.1f}",
        str(row.num_samples),
    )


def _with_error(value: float, error: float, *, least: int = 1) -> str:
    """Show the error to two figures and the value to as many decimals, at least ``least``."""
    if not math.isfinite(error):
        return f"{value:.{least}f} ± ?"
    decimals = least if error <= 0 else max(least, 1 - math.floor(math.log10(error)))
    decimals = min(decimals, 4)
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _page(
    rows: Sequence[Row],
    title: str,
    settings: Mapping[str, str],
    samples: Mapping[str, Sequence[str]],
) -> str:
    parts = [
        f"# {title}",
        _markdown_table(rows),
        _settings_line(rows, settings),
        "![GenPPL against steps, and against entropy](frontier.png)",
        _GUIDE.rstrip(),
    ]
    shown = {name: texts for name, texts in samples.items() if texts}
    if shown:
        parts.append("## Samples")
    for name, texts in shown.items():
        parts.append(f"### {name}")
        for i, text in enumerate(texts[:_TEXTS_SHOWN], start=1):
            parts += [f"**Sample {i}**", _code_block(text)]
    return "\n\n".join(parts) + "\n"


def _markdown_table(rows: Sequence[Row]) -> str:
    lines = [_HEADER, ("---",) + ("---:",) * (len(_HEADER) - 1), *(_cells(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _settings_line(rows: Sequence[Row], settings: Mapping[str, str]) -> str:
    """Name what the rows share, then what the caller adds; a caller's word wins."""
    sampled = [row for row in rows if row.model != "held_out"] or list(rows)
    shared = {
        "judge": _distinct([row.judge for row in rows]),
        "sampler": _distinct([row.sampler for row in sampled]),
        "precision": _distinct([row.precision for row in sampled]),
        "seed": _distinct([str(row.seed) for row in sampled]),
        "samples": _distinct([str(row.num_samples) for row in sampled]),
    }
    return " · ".join(f"**{key}** {value}" for key, value in (shared | dict(settings)).items())


def _distinct(values: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _code_block(text: str) -> str:
    """Indent the text, so that nothing in it is read as Markdown or HTML."""
    cut = text if len(text) <= _CHARACTERS_SHOWN else text[:_CHARACTERS_SHOWN].rstrip() + " …"
    lines = [piece for line in cut.splitlines() for piece in textwrap.wrap(line, width=92) or [""]]
    return textwrap.indent("\n".join(lines) or "(empty)", "    ", lambda _: True)
