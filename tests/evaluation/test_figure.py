import math
from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from PIL import Image

from idlm_ds.evaluation import figure
from idlm_ds.evaluation.figure import (
    INSET,
    INSET_TOP,
    Curve,
    Point,
    draw_run,
    draw_sweep,
    with_room_below,
)
from idlm_ds.evaluation.labels import settle
from idlm_ds.evaluation.row import Row
from tests.evaluation import rows


def row(model: str, steps: int | None, gen_ppl: float, entropy: float, **other) -> Row:
    errors = {"gen_ppl_se": 0.05 * gen_ppl, "entropy_se": 0.02}
    return rows.row(model, steps, gen_ppl, entropy, **(errors | other))


HELD_OUT = row("held-out", None, 16.0, 5.44)
TEACHER = [row("teacher", 2**k, 1500 / k**2, 5.9 - 0.05 * k) for k in range(2, 8)]
STUDENT = [row("student", 2**k, 90 / k, 5.4 - 0.05 * k) for k in range(2, 6)]
MATCHED = [
    row("teacher (matched)", 2**k, 250 / k, 5.4 - 0.05 * k, temperature=1 - k / 20)
    for k in range(2, 6)
]


@pytest.fixture
def drawn(monkeypatch):
    figures = []

    class Kept(Figure):
        def __init__(self, **options) -> None:
            super().__init__(**options)
            figures.append(self)

    monkeypatch.setattr(figure, "Figure", Kept)
    return figures


@pytest.mark.parametrize(
    "rows",
    [
        [HELD_OUT, *TEACHER, *MATCHED, *STUDENT],
        [HELD_OUT],
        [STUDENT[0]],
        [row("student", 1, 3.0, 0.0, gen_ppl_se=None, entropy_se=None)],
        [row("teacher", 4, 3.0, 4.0, gen_ppl_se=5.0)],
        [row("teacher", 4, 1e6, 4.0), row("teacher", 8, 1.5, 1.0)],
    ],
)
def test_any_subset_of_rows_draws(tmp_path, rows):
    draw_run(rows, tmp_path / "deep" / "frontier.png")
    with Image.open(tmp_path / "deep" / "frontier.png") as image:
        assert image.size == (1650, 750)
        assert len(image.convert("L").getcolors()) > 10


def test_step_labels_do_not_overlap(tmp_path, drawn):
    draw_run([HELD_OUT, *TEACHER, *MATCHED, *STUDENT], tmp_path / "frontier.png")
    (figure,) = drawn
    labels = [t for t in figure.axes[1].texts if isinstance(t, Annotation) and t.get_text()]
    expected = ["held-out", *(str(r["steps"]) for r in [*TEACHER, *MATCHED, *STUDENT])]
    assert [label.get_text() for label in labels] == expected
    boxes = [label.get_window_extent() for label in labels]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_of_the_controls_only_the_teacher_at_the_students_entropy_is_drawn():
    repeated = row("one real text repeated", None, 16.0, 3.9)
    in_distinct = row("teacher (matched in distinct-2)", 8, 60.0, 3.8)
    curves = figure.run_curves([HELD_OUT, repeated, *MATCHED, in_distinct])
    assert [curve.name for curve in curves] == ["held-out", "teacher (matched)"]


def test_axes_are_logarithmic_and_ticks_are_steps(tmp_path, drawn):
    near = row("teacher", 1000, 100.0, 5.5), row("teacher", 1024, 100.0, 5.5)
    draw_run([*STUDENT, *near], tmp_path / "frontier.png")
    left, right = drawn[0].axes
    assert (left.get_xscale(), left.get_yscale(), right.get_yscale()) == ("log", "log", "log")
    # 1000 would write over 1024.
    assert [t.get_text() for t in left.get_xticklabels()] == ["4", "8", "16", "32", "1024"]


def test_a_legend_names_only_what_tells_variants_apart(tmp_path, drawn):
    cold = row("student", 4, 20.0, 5.0, temperature=0.8)
    draw_run([*TEACHER, *MATCHED, *STUDENT, cold], tmp_path / "frontier.png")
    (legend,) = drawn[0].legends
    assert [t.get_text() for t in legend.get_texts()] == [
        "teacher",
        "teacher (matched)",
        "student, T=1",
        "student, T=0.8",
    ]


def test_a_label_moves_off_what_is_taken():
    figure = Figure(figsize=(4.0, 4.0), dpi=100)
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.subplots()
    label = axes.annotate("8", (0.5, 0.5), xytext=(0, 0), textcoords="offset points", va="center")
    inside = axes.get_window_extent(renderer)
    x, y = axes.transData.transform((0.5, 0.5))
    above = Bbox.from_extents(x - 60, y, x + 60, inside.y1)
    box = settle(label, renderer, [above], inside)
    assert not box.overlaps(above)
    assert box.y1 < y


def test_no_rows_are_refused(tmp_path):
    for rows_without_figure in ([], [rows.row("student", 4, None)]):
        with pytest.raises(ValueError, match="no rows"):
            draw_run(rows_without_figure, tmp_path / "frontier.png")


def point(entropy: float, gen_ppl: float, label: str = "") -> Point:
    return Point(entropy=entropy, entropy_se=0.01, gen_ppl=gen_ppl, gen_ppl_se=5.0, label=label)


SWEEP = [
    Curve("teacher", "teacher, 8 steps", [point(3.9, 400, "1"), point(3.8, 200, "0.8")]),
    Curve("teacher", "teacher, 64 steps", [point(3.9, 250, "1")]),
    Curve("student", "student, 8 steps", [point(3.8, 140, "1")]),
    Curve("real text", "real text", [point(3.86, 27)]),
]
CONTROL = Curve("control", "control: a phrase, repeated", [point(0.5, 2.0, "8")])


def test_a_sweep_has_a_panel_a_judge(tmp_path, drawn):
    draw_sweep({"j": SWEEP}, tmp_path / "one.png")
    draw_sweep({"j": SWEEP, "k": SWEEP}, tmp_path / "two.png")
    one, two = (figure.get_figwidth() for figure in drawn)
    assert two > 1.7 * one
    assert [panel.get_title() for panel in drawn[1].axes] == ["judge j", "judge k"]


def test_curves_of_a_kind_have_colours_of_their_own(tmp_path, drawn):
    draw_sweep({"j": SWEEP}, tmp_path / "one.png")
    (panel,) = drawn[0].axes
    colours = [bars.lines[0].get_color() for bars in panel.containers]
    assert len(set(colours)) == len(SWEEP)


def test_a_control_far_away_does_not_squeeze_the_others(tmp_path, drawn):
    draw_sweep({"j": SWEEP}, tmp_path / "plain.png")
    draw_sweep({"j": [*SWEEP, CONTROL]}, tmp_path / "control.png")
    (plain,), (panel,) = (figure.axes for figure in drawn)
    (inset,) = panel.child_axes
    assert panel.get_ylim()[1] == plain.get_ylim()[1]
    assert panel.get_xlim() == plain.get_xlim()
    assert inset.get_ylim()[0] < 2.0 < panel.get_ylim()[0]
    names = [text.get_text() for text in drawn[1].legends[0].get_texts()]
    assert names == [curve.name for curve in (*SWEEP, CONTROL)]
    # What models wrote lies above the inset.
    lowest = panel.transLimits.transform((0.0, math.log10(135.0)))[1]
    assert lowest > INSET[1] + INSET[3]


def test_a_sweep_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no curves"):
        draw_sweep({}, tmp_path / "none.png")


@pytest.mark.parametrize(("lowest", "top"), [(47.0, 240.0), (370.0, 1800.0), (0.5, 0.9)])
def test_the_lowest_model_lies_just_above_the_inset(lowest, top):
    bottom = with_room_below(lowest, top)
    height = math.log(lowest / bottom) / math.log(top / bottom)
    assert height == pytest.approx(INSET_TOP)
    assert height > INSET[1] + INSET[3]
