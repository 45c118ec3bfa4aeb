import math
from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from PIL import Image

from idlm_ds.evaluation import figure
from idlm_ds.evaluation.figure import draw_frontier
from idlm_ds.evaluation.labels import settle
from idlm_ds.evaluation.row import Row


def row(model: str, steps: int | None, gen_ppl: float, entropy: float, **other) -> Row:
    fields = {
        "nfe": None if steps is None else float(steps),
        "sampler": "ancestral",
        "precision": "float64",
        "temperature": 1.0,
        "gen_ppl_se": 0.05 * gen_ppl,
        "entropy_se": 0.02,
        "distinct_2": 0.5,
        "seconds": None,
        "num_samples": 80,
        "judge": "tiny",
        "seed": 0,
    }
    return Row(model=model, steps=steps, gen_ppl=gen_ppl, entropy=entropy, **(fields | other))


HELD_OUT = row("held_out", None, 16.0, 5.44)
TEACHER = [row("teacher", 2**k, 1500 / k**2, 5.9 - 0.05 * k) for k in range(2, 8)]
STUDENT = [row("student", 2**k, 90 / k, 5.4 - 0.05 * k) for k in range(2, 6)]
MATCHED = [
    row("teacher_matched", 2**k, 250 / k, 5.4 - 0.05 * k, temperature=1 - k / 20)
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
        [row("student", 1, 3.0, 0.0, gen_ppl_se=math.nan, entropy_se=math.nan)],
        [row("teacher", 4, 3.0, 4.0, gen_ppl_se=5.0)],
        [row("teacher", 4, 1e6, 4.0), row("teacher", 8, 1.5, 1.0)],
    ],
)
def test_any_subset_of_rows_draws(tmp_path, rows):
    draw_frontier(rows, tmp_path / "deep" / "frontier.png")
    with Image.open(tmp_path / "deep" / "frontier.png") as image:
        assert image.size == (1650, 750)
        assert len(image.convert("L").getcolors()) > 10


def test_step_labels_do_not_overlap(tmp_path, drawn):
    draw_frontier([HELD_OUT, *TEACHER, *MATCHED, *STUDENT], tmp_path / "frontier.png")
    (figure,) = drawn
    labels = [t for t in figure.axes[1].texts if isinstance(t, Annotation) and t.get_text()]
    expected = [str(r.steps) for r in [*TEACHER, *MATCHED, *STUDENT]] + ["held-out"]
    assert [label.get_text() for label in labels] == expected
    boxes = [label.get_window_extent() for label in labels]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_axes_are_logarithmic_and_ticks_are_steps(tmp_path, drawn):
    near = row("teacher", 1000, 100.0, 5.5), row("teacher", 1024, 100.0, 5.5)
    draw_frontier([*STUDENT, *near], tmp_path / "frontier.png")
    left, right = drawn[0].axes
    assert (left.get_xscale(), left.get_yscale(), right.get_yscale()) == ("log", "log", "log")
    # 1000 would write over 1024.
    assert [t.get_text() for t in left.get_xticklabels()] == ["4", "8", "16", "32", "1024"]


def test_a_legend_names_only_what_tells_variants_apart(tmp_path, drawn):
    cold = row("student", 4, 20.0, 5.0, temperature=0.8)
    draw_frontier([*TEACHER, *MATCHED, *STUDENT, cold], tmp_path / "frontier.png")
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
    with pytest.raises(ValueError, match="no rows"):
        draw_frontier([], tmp_path / "frontier.png")
