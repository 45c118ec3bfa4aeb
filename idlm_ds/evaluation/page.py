"""The report of a run: figures for programs, a page and a picture for people."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from idlm_ds.evaluation.figure import draw_run
from idlm_ds.evaluation.row import Row
from idlm_ds.evaluation.store import write_text
from idlm_ds.evaluation.table import COLUMNS, to_markdown, write_rows

RUN_COLUMNS = {
    key: COLUMNS[key]
    for key in (
        "model",
        "steps",
        "latent",
        "nfe",
        "gen_ppl",
        "entropy",
        "distinct_2",
        "temperature",
        "seconds",
        "num_samples",
    )
}
"""Columns of a run's table; what its rows share stands in a line below."""

SHARED = {
    "judge": "judge",
    "sampler": "sampler",
    "precision": "precision",
    "seeds": "seed",
    "length": "tokens a sample",
}

TEXTS_SHOWN = 3
CHARACTERS_SHOWN = 700

GUIDE = """\
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


def write_report(
    folder: Path,
    rows: Sequence[Row],
    *,
    title: str,
    settings: Mapping[str, Any],
    samples: Mapping[str, Sequence[str]],
) -> None:
    """Write ``report.json``, ``report.md`` and ``frontier.png``, each whole or not at all.

    ``settings`` are what all rows share besides what stands in each. Of the texts under each
    heading of ``samples``, the page shows the first few, shortened.

    Raises:
        ValueError: There are no rows.
    """
    if not rows:
        raise ValueError("write_report: no rows")
    write_rows(folder / "report.json", rows, settings)
    draw_run(rows, folder / "frontier.png")
    line = {**shared_by_rows(rows), **settings}
    parts = [
        f"# {title}",
        to_markdown(rows, RUN_COLUMNS),
        " · ".join(f"**{key}** {value}" for key, value in line.items() if value),
        "![GenPPL against steps, and against entropy](frontier.png)",
        GUIDE.rstrip(),
        *_sample_parts(samples),
    ]
    write_text(folder / "report.md", "\n\n".join(parts) + "\n")


def shared_by_rows(rows: Sequence[Row]) -> dict[str, str]:
    """Collect what the table leaves out because all its rows share it, by its heading."""
    shared = {}
    for key, heading in SHARED.items():
        values = [row[key] for row in rows if row.get("steps") is not None or key == "judge"]
        values = [", ".join(map(str, v)) if isinstance(v, list) else str(v) for v in values]
        shared[heading] = ", ".join(dict.fromkeys(values))
    return {heading: value for heading, value in shared.items() if value}


def _sample_parts(samples: Mapping[str, Sequence[str]]) -> list[str]:
    parts = []
    for heading, texts in samples.items():
        for i, text in enumerate(texts[:TEXTS_SHOWN], start=1):
            parts += [f"### {heading}"] * (i == 1)
            parts += [f"**Sample {i}**", _code_block(text)]
    return ["## Samples", *parts] if parts else []


def _code_block(text: str) -> str:
    """Indent the text, so that nothing in it is read as Markdown or HTML."""
    cut = text if len(text) <= CHARACTERS_SHOWN else text[:CHARACTERS_SHOWN].rstrip() + " …"
    lines = [piece for line in cut.splitlines() for piece in textwrap.wrap(line, width=92) or [""]]
    return textwrap.indent("\n".join(lines) or "(empty)", "    ", lambda _: True)
