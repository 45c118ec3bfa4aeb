"""The picture of a report: quality against steps, and quality against diversity."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox, BboxBase

from idlm_ds.evaluation.labels import lead, line_boxes, settle
from idlm_ds.evaluation.row import Row
from idlm_ds.files import write_atomic


@dataclass(frozen=True, slots=True)
class _Look:
    colour: str
    marker: str
    fill: str
    lines: tuple[str, ...]
    """Line style of the first, second, ... series of this model."""


# Okabe-Ito colours, which the common kinds of colour blindness keep apart; shapes differ too.
_LOOKS = {
    "teacher": _Look("#0072B2", "o", "#0072B2", ("-", "--", ":", "-.")),
    "student": _Look("#D55E00", "s", "#D55E00", ("-", "--", ":", "-.")),
    "teacher_matched": _Look("#0072B2", "D", "white", ("none",)),
    "held_out": _Look("#4D4D4D", "*", "#4D4D4D", ("none",)),
}


@dataclass(frozen=True, slots=True)
class _Series:
    label: str
    look: _Look
    line: str
    rows: tuple[Row, ...]


def draw_frontier(rows: Sequence[Row], path: Path) -> None:
    """Draw GenPPL (log) against steps (log2), and against entropy, as a PNG.

    Bars are one standard error; held-out text is a line with its band, and a star. Points of
    the right panel carry their steps.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("draw_frontier: no rows")
    series = _group(rows)
    held_out = tuple(row for row in rows if row.model == "held_out")
    figure = Figure(figsize=(11.0, 5.0), dpi=150, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_steps(left, series, held_out)
    _draw_plane(right, series, held_out)
    _dress(figure, rows)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncols=min(len(labels), 4), frameon=False, fontsize=10
    )
    # Room for the legend's lines; then the labels, which need the final size of the panels.
    figure.tight_layout(rect=(0.0, 0.03 + 0.045 * math.ceil(len(labels) / 4), 1.0, 1.0), w_pad=2.5)
    _label_steps(right, canvas.get_renderer(), series, held_out)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    write_atomic(path, stream.getvalue())


def _group(rows: Sequence[Row]) -> list[_Series]:
    """Split rows into lines: one a model, or one a variant where a model has several.

    Matched points stay one group: each has a temperature of its own.
    """
    series = []
    for model in ("teacher", "teacher_matched", "student"):
        mine = [row for row in rows if row.model == model]
        variants: dict[tuple[str, str, str], list[Row]] = {}
        for row in mine:
            key = (row.sampler, row.precision, f"T={row.temperature:g}")
            variants.setdefault(key if model != "teacher_matched" else ("", "", ""), []).append(row)
        # A label names only what tells the variants apart.
        varying = [len(set(parts)) > 1 for parts in zip(*variants, strict=True)]
        for i, (key, members) in enumerate(variants.items()):
            told = [part for part, varies in zip(key, varying, strict=True) if varies]
            look = _LOOKS[model]
            label = ", ".join([mine[0].display_name, *told])
            ordered = tuple(sorted(members, key=lambda row: row.steps or 0))
            series.append(_Series(label, look, look.lines[i % len(look.lines)], ordered))
    return series


def _error(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _log_bars(rows: Sequence[Row]) -> list[list[float]]:
    """Give the bars' lengths; below, the bar stops short of zero, which a log axis lacks."""
    up = [_error(row.gen_ppl_se) for row in rows]
    return [[min(e, 0.9 * row.gen_ppl) for e, row in zip(up, rows, strict=True)], up]


def _draw_steps(axes: Axes, series: Sequence[_Series], held_out: Sequence[Row]) -> None:
    for row in held_out:
        low, high = _log_bars([row])
        look = _LOOKS["held_out"]
        bottom, top = row.gen_ppl - low[0], row.gen_ppl + high[0]
        axes.axhspan(bottom, top, color=look.colour, alpha=0.18, linewidth=0)
        label = row.display_name if row is held_out[0] else None
        axes.axhline(row.gen_ppl, color=look.colour, linestyle="--", linewidth=1.3, label=label)
    for one in series:
        axes.errorbar(
            [row.steps or 0 for row in one.rows],
            [row.gen_ppl for row in one.rows],
            yerr=_log_bars(one.rows),
            label=one.label,
            **_style(one.look, one.line),
        )
    axes.set_xscale("log", base=2)
    steps = sorted({row.steps for one in series for row in one.rows if row.steps})
    if steps:
        ticks = _apart(steps)
        axes.set_xticks(ticks, [str(step) for step in ticks])
        axes.set_xlim(steps[0] / 2**0.5, steps[-1] * 2**0.5)
    else:
        axes.set_xticks([])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("sampling steps")
    axes.set_title("Quality against steps", fontsize=12)


def _apart(steps: Sequence[int]) -> list[int]:
    """Keep the ticks whose labels have room, the last one always."""
    least = max(0.06 * math.log(steps[-1] / steps[0]), 0.01)
    kept = [steps[-1]]
    for step in reversed(steps[:-1]):
        if math.log(kept[-1] / step) >= least:
            kept.append(step)
    return kept[::-1]


def _draw_plane(axes: Axes, series: Sequence[_Series], held_out: Sequence[Row]) -> None:
    star = _Series("", _LOOKS["held_out"], "none", tuple(held_out))
    for one in [*series, star] if held_out else series:
        axes.errorbar(
            [row.entropy for row in one.rows],
            [row.gen_ppl for row in one.rows],
            xerr=[_error(row.entropy_se) for row in one.rows],
            yerr=_log_bars(one.rows),
            **_style(one.look, one.line),
        )
    axes.margins(x=0.1)
    axes.set_xlabel("unigram entropy (nats)")
    axes.set_title("Quality against diversity (labels: steps)", fontsize=12)


def _style(look: _Look, line: str) -> dict[str, Any]:
    return {
        "color": look.colour,
        "linestyle": line,
        "linewidth": 1.6,
        "marker": look.marker,
        "markersize": 12 if look.marker == "*" else 7,
        "markerfacecolor": look.fill,
        "markeredgecolor": look.colour,
        "markeredgewidth": 1.4,
        "elinewidth": 1.2,
        "capsize": 3,
    }


def _dress(figure: Figure, rows: Sequence[Row]) -> None:
    low = min(row.gen_ppl - _log_bars([row])[0][0] for row in rows)
    high = max(row.gen_ppl + _log_bars([row])[1][0] for row in rows)
    pad = math.exp(max(0.07 * math.log(high / low), 0.05))
    for panel in figure.axes:
        panel.set_yscale("log")
        panel.set_ylim(low / pad, high * pad)
        # Powers of ten alone leave a narrow range with one tick or none.
        few = LogLocator(base=10.0, subs=(1.0, 2.0, 5.0) if high / low < 3000 else (1.0,))
        panel.yaxis.set_major_locator(few if high / low > 8 else AutoLocator())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_locator(NullLocator())
        panel.tick_params(labelleft=True, labelsize=10)
        panel.grid(True, which="major", color="#DDDDDD", linewidth=0.7)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("GenPPL (log, lower is more predictable)")


def _label_steps(
    axes: Axes, renderer: RendererAgg, series: Sequence[_Series], held_out: Sequence[Row]
) -> None:
    """Put each point's steps beside it, at the first place where it covers nothing."""
    inside = axes.get_window_extent(renderer)
    named = [(row, str(row.steps), one.look.colour) for one in series for row in one.rows]
    named += [(row, row.display_name, _LOOKS["held_out"].colour) for row in held_out]
    taken: list[BboxBase] = [box for row, _, _ in named for box in _point_boxes(axes, row)]
    lines = [
        axes.transData.transform([(row.entropy, row.gen_ppl) for row in one.rows])
        for one in series
        if one.line != "none"
    ]
    taken += [box for line in lines for box in line_boxes(line.tolist())]
    for row, text, colour in named:
        label = axes.annotate(
            text,
            (row.entropy, row.gen_ppl),
            xytext=(0.0, 0.0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=colour,
            fontsize=9.5,
        )
        taken.append(settle(label, renderer, taken, inside))
        lead(axes, label)


def _point_boxes(axes: Axes, row: Row) -> list[Bbox]:
    """Give the marker and the two error bars of a point, in pixels."""
    (x, y), (left, low), (right, high) = axes.transData.transform(
        [
            (row.entropy, row.gen_ppl),
            (row.entropy - _error(row.entropy_se), row.gen_ppl - _log_bars([row])[0][0]),
            (row.entropy + _error(row.entropy_se), row.gen_ppl + _log_bars([row])[1][0]),
        ]
    ).tolist()
    half = 10.0
    return [
        Bbox.from_extents(x - half, y - half, x + half, y + half),
        Bbox.from_extents(left - 2, y - 7, right + 2, y + 7),
        Bbox.from_extents(x - 7, low - 2, x + 7, high + 2),
    ]
