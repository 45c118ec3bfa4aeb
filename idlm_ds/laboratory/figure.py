"""The plot of the laboratory: divergence against steps, one panel a language."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from idlm_ds.files import write_atomic
from idlm_ds.laboratory.measure import (
    FITTED,
    ORDERED,
    SEARCHED,
    TEACHER,
    UNIFORM_TEACHER,
)
from idlm_ds.laboratory.rows import Finding, cells

LEAST = 1e-3
"""Lower end of the axis, in nats; smaller figures are drawn there."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a line is drawn; Okabe and Ito's colours."""

    colour: str
    marker: str = ""
    dashes: str = "-"


STYLES = {
    ORDERED: Style("#4D4D4D", dashes=":"),
    TEACHER: Style("#000000", "o"),
    SEARCHED: Style("#4D4D4D", "x", "--"),
    UNIFORM_TEACHER: Style("#56B4E9", "o", ":"),
    FITTED: Style("#999999", ".", "-"),
    "SDTT": Style("#009E73", "^"),
    "IDLM (= DMD)": Style("#E69F00", "s"),
    "IDLM + z": Style("#D55E00", "D"),
    "DCD": Style("#0072B2", "v", ":"),
}


def draw(figures: Sequence[Finding], path: Path) -> None:
    """Draw all languages as a PNG; bars are those of ``rows.TableEntry``.

    Raises:
        ValueError: There are no figures.
    """
    languages = list(dict.fromkeys(figure.language for figure in figures))
    if not languages:
        raise ValueError("draw: no figures")
    columns = min(3, len(languages))
    rows = math.ceil(len(languages) / columns)
    canvas = Canvas(figsize=(2.2 + 3.3 * columns, 1.1 + 3.1 * rows), dpi=68, facecolor="white")
    panels = canvas.subplots(rows, columns, squeeze=False).flatten()
    for panel, language in zip(panels, languages, strict=False):
        _draw_language(panel, figures, language)
    for panel in panels[len(languages) :]:
        panel.set_axis_off()
    for panel in panels[::columns]:
        panel.set_ylabel("KL(truth | law), nats")
    handles: dict[str, Any] = {}
    for panel in panels:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    lines = [handles[name] for name in STYLES if name in handles]
    names = [name for name in STYLES if name in handles]
    canvas.legend(lines, names, loc="lower center", ncols=columns + 1, frameon=False, fontsize=8)
    canvas.tight_layout(
        rect=(0.0, (0.35 + 0.35 * (columns < 3)) / (1.1 + 3.1 * rows) + 0.05, 1.0, 1.0)
    )
    stream = io.BytesIO()
    canvas.savefig(stream, format="png")
    write_atomic(path, stream.getvalue())


def _draw_language(panel: Axes, figures: Sequence[Finding], language: str) -> None:
    for line, by_steps in cells(figures, language).items():
        known = {steps: found for steps, found in by_steps.items() if math.isfinite(found.kl)}
        style = STYLES[line]
        bars = [min(found.spread, 0.9 * max(found.kl, LEAST)) for found in known.values()]
        panel.errorbar(
            list(known),
            [max(found.kl, LEAST) for found in known.values()],
            yerr=bars if any(bars) else None,
            label=line,
            color=style.colour,
            marker=style.marker,
            linestyle=style.dashes,
            linewidth=1.3,
            markersize=4.5,
            capsize=2,
        )
    steps = sorted({figure.steps for figure in figures})
    panel.set_xscale("log", base=2)
    panel.set_xticks(steps, [str(count) for count in steps])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    # Powers of ten alone leave a narrow range with one tick or none.
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.set_title(language, fontsize=10)
    panel.set_xlabel("steps", fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(True, which="major", color="#DDDDDD", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
