"""Tables and plots say what was measured."""

import math

import pytest

from idlm_ds.laboratory.figure import STYLES, draw
from idlm_ds.laboratory.measure import FITTED, TEACHER
from idlm_ds.laboratory.rows import Finding, cell, cells
from idlm_ds.laboratory.students import STUDENTS
from idlm_ds.laboratory.table import to_markdown, to_text


def figure(line: str, steps: int, kl: float, **others) -> Finding:
    return Finding(language="pairs", line=line, steps=steps, kl=kl, **others)


FIGURES = [
    figure(TEACHER, 1, 8.0, mass=0.01),
    figure(TEACHER, 2, 2.0, mass=0.1),
    figure(FITTED, 1, 8.1, seed=0, mass=0.01),
    figure(FITTED, 1, 8.3, seed=1, mass=0.03),
    figure("IDLM + z", 1, 1.0, seed=0, se=0.25, mass=0.5, how="8 draws"),
    figure("IDLM + z", 2, math.inf, seed=0, se=math.nan, mass=0.5, how="8 draws"),
]


def test_seeds_are_averaged_and_the_larger_error_is_shown():
    joined = cells(FIGURES, "pairs")[FITTED][1]
    assert (joined.kl, joined.spread, joined.mass) == pytest.approx((8.2, 0.1, 0.02))
    assert cell([FIGURES[4]]).spread == 0.25
    assert math.isnan(cell([FIGURES[5]]).spread)


def test_a_table_has_a_line_each_and_says_what_is_missing():
    text = to_text(FIGURES, "pairs")
    assert "8.200 ± 0.100 (2%)" in text
    (latent,) = [line for line in text.splitlines() if line.startswith("IDLM + z")]
    assert latent.split() == ["IDLM", "+", "z", "1.000", "±", "0.250", "(50%)", "infinite"]
    (fitted,) = [line for line in text.splitlines() if line.startswith(FITTED)]
    assert fitted.endswith(" -")
    assert "DCD: a method of uniform families" in text
    assert "| exact teacher | 8.000 (1%) | 2.000 (10%) |" in to_markdown(FIGURES, "pairs")


def test_every_line_has_a_style_and_a_plot_is_small(tmp_path):
    assert {kind.name for kind in STUDENTS} <= STYLES.keys()
    draw(FIGURES, tmp_path / "plot.png")
    content = (tmp_path / "plot.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) < 100_000
    with pytest.raises(ValueError, match="no figures"):
        draw([], tmp_path / "none.png")
