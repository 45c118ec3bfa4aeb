"""The picture of a sweep: GenPPL against entropy, one curve a model, one panel a judge."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox, BboxBase

from idlm_ds.evaluation.labels import line_boxes, settle
from idlm_ds.files import write_atomic

COLOURS = {
    "teacher": ("#0072B2", "#56B4E9", "#004166"),
    "student": ("#D55E00", "#E69F00", "#7A3600"),
    "control": ("#8C8C8C",),
    "real text": ("#000000",),
}
"""Of the first, second, ... curve of a kind; those of Okabe and Ito and darker ones."""

LINES = {"teacher": "-", "student": "-", "control": ":", "real text": "none"}
MARKERS = {"teacher": "o", "student": "s", "control": "x", "real text": "*"}

INSET = (0.08, 0.07, 0.38, 0.28)
"""Left, bottom, width and height of an inset, as shares of its panel."""
INSET_TOP = 0.42
"""Where its title ends."""


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

    A control lies far from everything else, so it is shown in an inset with the whole range.

    Raises:
        ValueError: There are no curves.
    """
    if not curves:
        raise ValueError("draw_sweep: no curves")
    judges = list(dict.fromkeys(curve.judge for curve in curves))
    figure = Figure(figsize=(1.5 + 5.8 * len(judges), 6.2), dpi=150, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(judges), squeeze=False)[0]
    for panel, judge in zip(panels, judges, strict=True):
        mine = [curve for curve in curves if curve.judge == judge]
        _draw_curves(panel, [curve for curve in mine if curve.kind != "control"], size=6.0)
        _dress(panel)
        panel.set_title(f"judge {judge}", fontsize=11)
        panel.set_xlabel("unigram entropy (nats); labels: temperature")
        if any(curve.kind == "control" for curve in mine):
            _draw_inset(panel, mine)
    panels[0].set_ylabel("GenPPL (log, lower is more predictable)")
    handles, labels = _legend(panels[0])
    columns = min(len(labels), 1 + 2 * len(judges))
    figure.legend(handles, labels, loc="lower center", ncols=columns, frameon=False, fontsize=10)
    figure.tight_layout(rect=(0.0, 0.03 + 0.04 * -(-len(labels) // columns), 1.0, 1.0))
    for panel, judge in zip(panels, judges, strict=True):
        shown = [c for c in curves if c.judge == judge and c.kind != "control"]
        _label(panel, canvas.get_renderer(), shown)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    write_atomic(path, stream.getvalue())


def _draw_curves(panel: Axes, curves: Sequence[Curve], *, size: float) -> None:
    for curve, colour in _coloured(curves):
        points = sorted(curve.points, key=lambda point: point.entropy)
        is_star = curve.kind == "real text"
        up = [p.gen_ppl_se for p in points]
        panel.errorbar(
            [p.entropy for p in points],
            [p.gen_ppl for p in points],
            xerr=[p.entropy_se for p in points],
            yerr=[[min(e, 0.9 * p.gen_ppl) for e, p in zip(up, points, strict=True)], up],
            label=curve.name,
            color=colour,
            linestyle=LINES[curve.kind],
            linewidth=0.25 * size,
            marker=MARKERS[curve.kind],
            markersize=2 * size if is_star else size,
            elinewidth=0.18 * size,
            capsize=0.4 * size,
            zorder=5 if is_star else 3,
        )


def _coloured(curves: Sequence[Curve]) -> Iterator[tuple[Curve, str]]:
    seen: dict[str, int] = {}
    for curve in curves:
        palette, number = COLOURS[curve.kind], seen.get(curve.kind, 0)
        seen[curve.kind] = number + 1
        yield curve, palette[number % len(palette)]


def _dress(panel: Axes) -> None:
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(base=10.0, subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.grid(True, which="major", color="#DDDDDD", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.margins(x=0.12, y=0.08)


def _draw_inset(panel: Axes, curves: Sequence[Curve]) -> None:
    """The whole range, small, below all that was drawn from a model."""
    drawn = [c for c in curves if c.kind not in ("control", "real text")]
    if drawn:
        lowest = min(
            max(p.gen_ppl - p.gen_ppl_se, 0.1 * p.gen_ppl) for c in drawn for p in c.points
        )
        bottom, top = panel.get_ylim()
        panel.set_ylim(bottom=min(bottom, with_room_below(lowest, top)))
    inset = panel.inset_axes(INSET)
    _draw_curves(inset, curves, size=3.0)
    _dress(inset)
    inset.tick_params(labelsize=7)
    inset.set_title("with the control", fontsize=8.5)


def with_room_below(lowest: float, top: float) -> float:
    """Where a logarithmic axis up to ``top`` must begin for an inset to fit below ``lowest``."""
    return (lowest / top**INSET_TOP) ** (1 / (1 - INSET_TOP))


def _legend(panel: Axes) -> tuple[list[Any], list[str]]:
    """Entries of a panel and of its inset, each once."""
    entries: dict[str, Any] = {}
    insets: list[Any] = panel.child_axes
    for axes in (panel, *insets):
        handles, labels = axes.get_legend_handles_labels()
        entries |= {k: v for k, v in zip(labels, handles, strict=True) if k not in entries}
    return list(entries.values()), list(entries)


def _label(panel: Axes, renderer: RendererAgg, curves: Sequence[Curve]) -> None:
    """Put each point's label beside it, at the first place where it covers nothing."""
    inside, taken = panel.get_window_extent(renderer), list[BboxBase]()
    for curve in curves:
        points = sorted(curve.points, key=lambda point: point.entropy)
        places = panel.transData.transform([(p.entropy, p.gen_ppl) for p in points]).tolist()
        taken += [Bbox.from_extents(x - 9, y - 9, x + 9, y + 9) for x, y in places]
        taken += line_boxes(places) if LINES[curve.kind] != "none" else []
    taken += [child.get_window_extent(renderer) for child in panel.child_axes]
    for curve, colour in _coloured(curves):
        for point in (p for p in curve.points if p.label):
            label = panel.annotate(
                point.label,
                (point.entropy, point.gen_ppl),
                xytext=(0.0, 0.0),
                textcoords="offset points",
                va="center",
                color=colour,
                fontsize=9,
            )
            taken.append(settle(label, renderer, taken, inside))
