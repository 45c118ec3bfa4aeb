"""Labels of a plot, put where they cover nothing."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox, BboxBase

_NUDGES = [
    (math.cos(angle) * reach, math.sin(angle) * reach)
    for reach in (11.0, 16.0, 23.0, 32.0)
    for angle in (math.pi * k / 4 for k in (2, 1, 3, 0, 4, 6, 7, 5))
]
_NEAR = 17.0
_GAP = 1.5


def settle(
    label: Annotation, renderer: RendererAgg, taken: Sequence[BboxBase], inside: BboxBase
) -> BboxBase:
    """Move the label to its least covered place, the nearest of equals."""

    def place(dx: float, dy: float) -> BboxBase:
        # A long word keeps its near end, not its middle, at that distance.
        label.set_position((dx, dy))
        label.set_horizontalalignment("left" if dx > 1 else "right" if dx < -1 else "center")
        return label.get_window_extent(renderer).padded(_GAP)

    best, least = _NUDGES[0], math.inf
    for nudge in _NUDGES:
        box = place(*nudge)
        covered = sum(_shared_area(box, other) for other in taken)
        covered += box.width * box.height - _shared_area(box, inside)
        # A hundredth of a square pixel is rounding.
        if covered < least - 0.01:
            best, least = nudge, covered
        if covered < 0.01:
            break
    return place(*best)


def lead(axes: Axes, label: Annotation) -> None:
    """Tie a label that had to move away to its point with a thin line."""
    if math.hypot(*label.get_position()) > _NEAR:
        line = {"arrowstyle": "-", "linewidth": 0.7, "shrinkA": 4, "shrinkB": 4}
        axes.annotate(
            "",
            label.xy,
            xytext=label.get_position(),
            textcoords="offset points",
            zorder=1,
            arrowprops=line | {"color": label.get_color()},
        )


def line_boxes(points: Sequence[Sequence[float]]) -> list[Bbox]:
    """Cover the segments between points with small boxes, in pixels."""
    boxes = []
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        num_boxes = max(1, int(math.hypot(x1 - x0, y1 - y0) / 6))
        for k in range(num_boxes + 1):
            x, y = x0 + (x1 - x0) * k / num_boxes, y0 + (y1 - y0) * k / num_boxes
            boxes.append(Bbox.from_extents(x - 2, y - 2, x + 2, y + 2))
    return boxes


def _shared_area(a: BboxBase, b: BboxBase) -> float:
    both = Bbox.intersection(a, b)
    return 0.0 if both is None else float(both.width * both.height)
