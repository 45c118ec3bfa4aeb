"""The report of a run: figures for programs, a page and a picture for people."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from idlm_ds.evaluation.figure import draw_run
from idlm_ds.evaluation.row import Row
from idlm_ds.evaluation.store import write_text
from idlm_ds.evaluation.table import COLUMNS, to_markdown, value_with_error, write_rows

RUN_COLUMNS = {
    key: COLUMNS[key]
    for key in (
        "model",
        "steps",
        "latent",
        "relaxation",
        "nfe",
        "gen_ppl",
        "entropy",
        "entropy_p5",
        "digit_strings",
        "distinct_2",
        "temperature",
        "seconds",
    )
}
"""Columns of a run's table on the console; what its rows share stands in a line below."""

PAGE_COLUMNS = {
    **{key: heading for key, heading in RUN_COLUMNS.items() if key != "seconds"},
    "word_entropy": COLUMNS["word_entropy"],
    "self_bleu": COLUMNS["self_bleu"],
    "student_minus_matched": "student - matched",
    "verdict": "student is",
    "seconds": COLUMNS["seconds"],
}
"""Columns of the table of the page."""

SHARED = {
    "judge": "judge",
    "sampler": "sampler",
    "precision": "precision",
    "seeds": "seed",
    "length": "tokens a sample",
    "num_samples": "samples a row",
}

TEXTS_SHOWN = 3
CHARACTERS_SHOWN = 700

GUIDE = """\
## How to read this

- **GenPPL** is the perplexity of the samples under the judge, token-weighted; ± is one standard
  error over sequences. Lower is more predictable, not by itself better: dull or repetitive text
  scores low.
- **Entropy** is the unigram entropy within a sequence, in nats; 5 % of the samples are at or below
  **p5**, where a few that collapsed show first. Read them with GenPPL: a fair win is a
  lower GenPPL at an entropy no lower.
- **digits** is the share of samples with more than 30 % digits and `,.$;`.
- **word entropy** is that of words instead of tokens, and depends on no tokenizer.
- **held-out** is real text under the same judge: what all columns should come near to, from
  either side.
- **one real text repeated** is a window of it, repeated: GenPPL and entropy see nothing wrong with
  that. **distinct-2** (it falls as text is added: compare at equal sample count and length only)
  and **self-BLEU** do.
- **teacher (matched)** is the teacher set to reach the student's entropy, so its GenPPL may be
  compared with the student's directly. It is read off at exactly that entropy, between sets at
  several temperatures, and its ± has the error of both entropies in it. The other figures
  of the row are of the nearest set. **matched in distinct-2** is the same at equal distinct-2.
- **student - matched**: GenPPL of the student minus that of the row, with a joint error; the
  student is *below* or *above* where it is more than two of them away, else *level*.
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
        to_markdown(rows, PAGE_COLUMNS),
        *comparisons(rows),
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


def comparisons(rows: Sequence[Row]) -> list[str]:
    """Say in a line for each matched row how the student compares, or why that is unknown."""
    lines = []
    for row in rows:
        if row.get("matched_in") is None:
            continue
        control = f"{row['model']} at {row['steps']} steps"
        student = f"student at {row['matched_to_steps']} steps"
        if row["not_matched"] is not None:
            lines.append(f"{control}: no match: {row['not_matched']}")
            continue
        difference = value_with_error(row["student_minus_matched"], row["student_minus_matched_se"])
        lines.append(f"{student} - {control}: GenPPL {difference}: the student is {row['verdict']}")
    return lines


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
