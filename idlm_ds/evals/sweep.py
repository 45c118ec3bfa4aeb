"""The picture of a sweep: GenPPL against entropy, one curve a model, one panel a judge."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from idlm_ds.files import write_atomic

COLOURS = {
    "teacher": ("#0072B2", "#56B4E9", "#004166"),
    "student": ("#D55E00", "#E69F00", "#7A3600"),
    "control": ("#8C8C8C",),
    "real text": ("#000000",),
}
"""Of the first, second, ... curve of a kind; those of Okabe and Ito and darker ones."""

MARKERS = {"teacher": "o", "student": "s", "control": "x", "real text": "*"}


@dataclass(frozen=True, slots=True)
class Point:
    """A set of samples."""

    entropy: float
    entropy_se: float
    gen_ppl: float
    gen_ppl_se: float
    label: str
    """Written beside it; may be empty."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Sets that differ in one setting only."""

    judge: str
    kind: str
    """A key of ``COLOURS``."""

    name: str
    points: Sequence[Point]


def draw_sweep(curves: Sequence[Curve], path: Path) -> None:
    """Draw GenPPL (log) against entropy as a PNG; bars are one standard error.

    Raises:
        ValueError: There are no curves.
    """
    if not curves:
        raise ValueError("draw_sweep: no curves")
    judges = list(dict.fromkeys(curve.judge for curve in curves))
    figure = Figure(figsize=(1.5 + 5.2 * len(judges), 5.4), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(judges), squeeze=False)[0]
    for panel, judge in zip(panels, judges, strict=True):
        _draw(panel, [curve for curve in curves if curve.judge == judge])
        panel.set_title(f"judge {judge}", fontsize=11)
    panels[0].set_ylabel("GenPPL (log, lower is more predictable)")
    handles, labels = panels[0].get_legend_handles_labels()
    columns = min(len(labels), 2 + len(judges))
    figure.legend(handles, labels, loc="lower center", ncols=columns, frameon=False, fontsize=10)
    figure.tight_layout(rect=(0.0, 0.03 + 0.045 * -(-len(labels) // columns), 1.0, 1.0))
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    write_atomic(path, stream.getvalue())


def _draw(panel: Axes, curves: Sequence[Curve]) -> None:
    seen: dict[str, int] = {}
    for curve in curves:
        number = seen[curve.kind] = seen.get(curve.kind, -1) + 1
        palette = COLOURS[curve.kind]
        _draw_curve(panel, curve, palette[number % len(palette)], _LINES[curve.kind])
    panel.set_yscale("log")
    panel.set_xlabel("unigram entropy (nats); points: temperature")
    panel.yaxis.set_major_locator(LogLocator(base=10.0, subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.grid(True, which="major", color="#DDDDDD", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


_LINES = {"teacher": "-", "student": "-", "control": ":", "real text": "none"}


def _draw_curve(panel: Axes, curve: Curve, colour: str, line: str) -> None:
    points = sorted(curve.points, key=lambda point: point.entropy)
    is_star = curve.kind == "real text"
    panel.errorbar(
        [p.entropy for p in points],
        [p.gen_ppl for p in points],
        xerr=[p.entropy_se for p in points],
        yerr=[[min(p.gen_ppl_se, 0.9 * p.gen_ppl) for p in points], [p.gen_ppl_se for p in points]],
        label=curve.name,
        color=colour,
        linestyle=line,
        linewidth=1.6,
        marker=MARKERS[curve.kind],
        markersize=13 if is_star else 6,
        elinewidth=1.1,
        capsize=2.5,
        zorder=5 if is_star else 3,
    )
    for p in points:
        panel.annotate(
            p.label,
            (p.entropy, p.gen_ppl),
            xytext=(6, -10),
            textcoords="offset points",
            color=colour,
            fontsize=8.5,
        )
