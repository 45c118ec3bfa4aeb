import math
from pathlib import Path

import matplotlib.image
import pytest

from idlm_ds.evaluation.sweep import INSET, INSET_TOP, Curve, Point, draw_sweep, with_room_below


def point(entropy: float, gen_ppl: float, label: str = "") -> Point:
    return Point(entropy, 0.01, float(gen_ppl), 5.0, label)


def curves(judge: str = "j") -> list[Curve]:
    return [
        Curve(judge, "teacher", "teacher, 8 steps", [point(3.9, 400, "1"), point(3.8, 200, "0.8")]),
        Curve(judge, "teacher", "teacher, 64 steps", [point(3.9, 250, "1")]),
        Curve(judge, "student", "student, 8 steps", [point(3.8, 140, "1")]),
        Curve(judge, "real text", "real text", [point(3.86, 27)]),
    ]


def picture(path: Path):
    return matplotlib.image.imread(path)


def test_a_panel_a_judge(tmp_path):
    draw_sweep(curves(), tmp_path / "one.png")
    draw_sweep(curves() + curves("k"), tmp_path / "two.png")
    one, two = (picture(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert two.shape[1] > 1.7 * one.shape[1]


def test_a_control_far_away_does_not_squeeze_the_others(tmp_path):
    draw_sweep(curves(), tmp_path / "plain.png")
    far = [point(0.5, 2.0, "8")]
    control = Curve("j", "control", "control: a phrase, repeated", far)
    draw_sweep([*curves(), control], tmp_path / "control.png")
    plain, control_too = picture(tmp_path / "plain.png"), picture(tmp_path / "control.png")
    # The upper half of the panel holds the models' curves, and the inset lies below it.
    height, width = plain.shape[0] // 3, plain.shape[1]
    assert (plain[height // 4 : height, width // 8 :] != 1).any()
    assert (plain[: height // 2] == control_too[: height // 2]).mean() > 0.95


def test_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no curves"):
        draw_sweep([], tmp_path / "none.png")


@pytest.mark.parametrize(("lowest", "top"), [(47.0, 240.0), (370.0, 1800.0), (0.5, 0.9)])
def test_the_lowest_model_lies_just_above_the_inset(lowest, top):
    bottom = with_room_below(lowest, top)
    height = math.log(lowest / bottom) / math.log(top / bottom)
    assert height == pytest.approx(INSET_TOP)
    assert height > INSET[1] + INSET[3]
