"""Pictures of evaluations: quality against steps, and quality against diversity."""

import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox, BboxBase

from idlm_ds.evaluation.labels import lead, line_boxes, settle
from idlm_ds.evaluation.row import REPEATED, Row
from idlm_ds.files import write_atomic

INSET = (0.08, 0.07, 0.38, 0.28)
"""Left, bottom, width and height of an inset, as shares of its panel."""
INSET_TOP = 0.42
"""Where its title ends."""


@dataclass(frozen=True, slots=True)
class Look:
    """How curves of a kind are drawn."""

    colours: tuple[str, ...]
    """Of the first, second, ... curve; those of Okabe and Ito and shades of them."""

    marker: str
    line: str = "none"
    is_hollow: bool = False


# Okabe and Ito's colours stay apart under the common kinds of colour blindness; shapes differ too.
LOOKS = {
    "teacher": Look(("#0072B2", "#56B4E9", "#004166", "#3B8FC2", "#8CCBF0", "#00263B"), "o", "-"),
    "teacher (matched)": Look(("#0072B2",), "D", is_hollow=True),
    "student": Look(("#D55E00", "#E69F00", "#7A3600", "#F08A3C", "#A67C00", "#4A2000"), "s", "-"),
    "real text": Look(("#4D4D4D",), "*"),
    "control": Look(("#8C8C8C",), "x", ":"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A set of samples."""

    entropy: float
    entropy_se: float = 0.0
    gen_ppl: float
    gen_ppl_se: float = 0.0
    steps: int | None = None
    label: str = ""
    """Written beside it; may be empty."""

    @classmethod
    def of(cls, row: Row, label: str) -> "Point":
        """Take the figures of a row whose GenPPL is known; an unknown error has no bar."""
        return cls(
            entropy=row["entropy"],
            entropy_se=row["entropy_se"] or 0.0,
            gen_ppl=row["gen_ppl"],
            gen_ppl_se=row["gen_ppl_se"] or 0.0,
            steps=row["steps"],
            label=label,
        )

    @property
    def low(self) -> float:
        """Lower end of the bar, which stops short of zero, since a logarithmic axis has none."""
        return max(self.gen_ppl - self.gen_ppl_se, 0.1 * self.gen_ppl)

    @property
    def high(self) -> float:
        """Upper end of the bar."""
        return self.gen_ppl + self.gen_ppl_se


@dataclass(frozen=True, slots=True)
class Curve:
    """Sets that differ in one setting only, in its order."""

    kind: str
    """A key of ``LOOKS``."""

    name: str
    points: Sequence[Point]


def draw_run(rows: Sequence[Row], path: Path) -> None:
    """Draw a run's GenPPL (log) against steps (log2), and against entropy, as a PNG.

    Bars are one standard error; real text is a line with its band, and a star.

    Raises:
        ValueError: There are no rows.
    """
    curves = run_curves(rows)
    if not curves:
        raise ValueError("draw_run: no rows")
    figure = Figure(figsize=(11.0, 5.0), dpi=150, facecolor="white")
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_steps(left, curves)
    _draw_plane(right, curves)
    right.set_xlabel("unigram entropy (nats)")
    right.set_title("Quality against diversity (labels: steps)", fontsize=12)
    for panel in (left, right):
        _dress(panel, curves)
        panel.tick_params(labelleft=True, labelsize=10)
    _finish(figure, [left, right], {right: curves}, path)


def draw_sweep(panels: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Draw GenPPL (log) against entropy as a PNG, one panel a judge; bars are one standard error.

    A control lies far from everything else, so it is shown in an inset with the whole range.

    Raises:
        ValueError: There are no curves.
    """
    if not any(panels.values()):
        raise ValueError("draw_sweep: no curves")
    figure = Figure(figsize=(1.5 + 5.8 * len(panels), 6.2), dpi=150, facecolor="white")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    shown = {}
    for panel, (judge, curves) in zip(axes, panels.items(), strict=True):
        shown[panel] = [curve for curve in curves if curve.kind != "control"]
        _draw_plane(panel, shown[panel])
        _dress(panel, shown[panel])
        panel.set_title(f"judge {judge}", fontsize=11)
        panel.set_xlabel("unigram entropy (nats); labels: temperature")
        if len(shown[panel]) < len(curves):
            _draw_inset(panel, curves)
    _finish(figure, list(axes), shown, path)


def run_curves(rows: Sequence[Row]) -> list[Curve]:
    """Split the rows of a run into curves: one a model, or one a variant where it has several.

    Matched points stay one curve: each has a temperature of its own.
    """
    known = [row for row in rows if row["gen_ppl"] is not None]
    real = [row for row in known if row["steps"] is None and row["model"] != REPEATED]
    curves = [Curve("real text", row["model"], [Point.of(row, row["model"])]) for row in real]
    for kind in ("teacher", "teacher (matched)", "student"):
        of_kind = [row for row in known if row["model"] == kind]
        variants: dict[tuple[str, ...], list[Row]] = {}
        for row in of_kind:
            key: tuple[str, ...] = (row["sampler"], row["precision"], f"T={row['temperature']:g}")
            key = () if kind == "teacher (matched)" else key
            variants.setdefault(key, []).append(row)
        # A name says only what tells the variants apart.
        varying = [len(set(parts)) > 1 for parts in zip(*variants, strict=True)]
        for key, members in variants.items():
            parts = [part for part, varies in zip(key, varying, strict=True) if varies]
            ordered = sorted(members, key=lambda row: row["steps"])
            points = [Point.of(row, str(row["steps"])) for row in ordered]
            curves.append(Curve(kind, ", ".join([kind, *parts]), points))
    return curves


def with_room_below(lowest: float, top: float) -> float:
    """Where a logarithmic axis up to ``top`` must begin for an inset to fit below ``lowest``."""
    return (lowest / top**INSET_TOP) ** (1 / (1 - INSET_TOP))


def _coloured(curves: Sequence[Curve]) -> Iterator[tuple[Curve, str]]:
    counts = Counter[str]()
    for curve in curves:
        colours = LOOKS[curve.kind].colours
        yield curve, colours[counts[curve.kind] % len(colours)]
        counts[curve.kind] += 1


def _draw_steps(axes: Axes, curves: Sequence[Curve]) -> None:
    for curve, colour in _coloured(curves):
        if curve.kind != "real text":
            _draw_bars(axes, curve, colour, [point.steps or 0 for point in curve.points])
            continue
        for point in curve.points:
            axes.axhspan(point.low, point.high, color=colour, alpha=0.18, linewidth=0)
            axes.axhline(
                point.gen_ppl, label=curve.name, color=colour, linestyle="--", linewidth=1.3
            )
    axes.set_xscale("log", base=2)
    steps = sorted({point.steps for curve in curves for point in curve.points if point.steps})
    axes.set_xticks([])
    if steps:
        ticks = _ticks_with_room(steps)
        axes.set_xticks(ticks, [str(step) for step in ticks])
        axes.set_xlim(steps[0] / 2**0.5, steps[-1] * 2**0.5)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("sampling steps")
    axes.set_title("Quality against steps", fontsize=12)


def _ticks_with_room(steps: Sequence[int]) -> list[int]:
    """Keep the ticks whose labels have room, the last one always."""
    least = max(0.06 * math.log(steps[-1] / steps[0]), 0.01)
    kept = [steps[-1]]
    for step in reversed(steps[:-1]):
        if math.log(kept[-1] / step) >= least:
            kept.append(step)
    return kept[::-1]


def _draw_plane(axes: Axes, curves: Sequence[Curve], *, scale: float = 1.0) -> None:
    for curve, colour in _coloured(curves):
        entropies = [point.entropy for point in curve.points]
        errors = [point.entropy_se for point in curve.points]
        _draw_bars(axes, curve, colour, entropies, xerr=errors, scale=scale)
    axes.margins(x=0.1)


def _draw_bars(
    axes: Axes,
    curve: Curve,
    colour: str,
    x: Sequence[float],
    *,
    xerr: Sequence[float] | None = None,
    scale: float = 1.0,
) -> None:
    look, points = LOOKS[curve.kind], curve.points
    below = [point.gen_ppl - point.low for point in points]
    axes.errorbar(
        x,
        [point.gen_ppl for point in points],
        xerr=xerr,
        yerr=[below, [point.high - point.gen_ppl for point in points]],
        label=curve.name,
        color=colour,
        linestyle=look.line,
        linewidth=1.6 * scale,
        marker=look.marker,
        markersize=scale * (12 if look.marker == "*" else 7),
        markerfacecolor="white" if look.is_hollow else colour,
        markeredgecolor=colour,
        markeredgewidth=1.4 * scale,
        elinewidth=1.2 * scale,
        capsize=3 * scale,
        zorder=5 if look.marker == "*" else 3,
    )


def _dress(axes: Axes, curves: Sequence[Curve]) -> None:
    points = [point for curve in curves for point in curve.points]
    low, high = min(point.low for point in points), max(point.high for point in points)
    pad = math.exp(max(0.07 * math.log(high / low), 0.05))
    axes.set_yscale("log")
    axes.set_ylim(low / pad, high * pad)
    # Powers of ten alone leave a narrow range with one tick or none.
    few = LogLocator(base=10.0, subs=(1.0, 2.0, 5.0) if high / low < 3000 else (1.0,))
    axes.yaxis.set_major_locator(few if high / low > 8 else AutoLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(True, which="major", color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_inset(panel: Axes, curves: Sequence[Curve]) -> None:
    """Draw the whole range, small, below all that was drawn from a model."""
    models = [curve for curve in curves if curve.kind not in ("control", "real text")]
    if models:
        lowest = min(point.low for curve in models for point in curve.points)
        bottom, top = panel.get_ylim()
        panel.set_ylim(bottom=min(bottom, with_room_below(lowest, top)))
    inset = panel.inset_axes(INSET)
    _draw_plane(inset, curves, scale=0.5)
    _dress(inset, curves)
    inset.tick_params(labelsize=7)
    inset.set_title("with the control", fontsize=8.5)


def _finish(
    figure: Figure, panels: Sequence[Axes], labelled: Mapping[Axes, Sequence[Curve]], path: Path
) -> None:
    """Add legend and labels, and write the file whole or not at all."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    panels[0].set_ylabel("GenPPL (log, lower is more predictable)")
    handles: dict[str, Any] = {}
    insets: list[Any] = panels[0].child_axes
    for axes in (panels[0], *insets):
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    columns = min(len(handles), 2 * len(panels) + 1)
    figure.legend(
        handles.values(), handles, loc="lower center", ncols=columns, frameon=False, fontsize=10
    )
    # Room for the legend's lines; then the labels, which need the final size of the panels.
    room = 0.03 + 0.045 * math.ceil(len(handles) / columns)
    figure.tight_layout(rect=(0.0, room, 1.0, 1.0), w_pad=2.5)
    for axes, curves in labelled.items():
        _label(axes, renderer, curves)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    write_atomic(path, stream.getvalue())


def _label(axes: Axes, renderer: RendererAgg, curves: Sequence[Curve]) -> None:
    """Put each point's label beside it, at the first place where it covers nothing."""
    inside, taken = axes.get_window_extent(renderer), list[BboxBase]()
    for curve in curves:
        taken += [box for point in curve.points for box in _point_boxes(axes, point)]
        if LOOKS[curve.kind].line != "none":
            places = [(point.entropy, point.gen_ppl) for point in curve.points]
            taken += line_boxes(axes.transData.transform(places).tolist())
    taken += [child.get_window_extent(renderer) for child in axes.child_axes]
    for curve, colour in _coloured(curves):
        for point in (point for point in curve.points if point.label):
            label = axes.annotate(
                point.label,
                (point.entropy, point.gen_ppl),
                xytext=(0.0, 0.0),
                textcoords="offset points",
                ha="center",
                va="center",
                color=colour,
                fontsize=9.5,
            )
            taken.append(settle(label, renderer, taken, inside))
            lead(axes, label)


def _point_boxes(axes: Axes, point: Point) -> list[Bbox]:
    """Give the marker and the two error bars of a point, in pixels."""
    (x, y), (left, low), (right, high) = axes.transData.transform(
        [
            (point.entropy, point.gen_ppl),
            (point.entropy - point.entropy_se, point.low),
            (point.entropy + point.entropy_se, point.high),
        ]
    ).tolist()
    half = 10.0
    return [
        Bbox.from_extents(x - half, y - half, x + half, y + half),
        Bbox.from_extents(left - 2, y - 7, right + 2, y + 7),
        Bbox.from_extents(x - 7, low - 2, x + 7, high + 2),
    ]
