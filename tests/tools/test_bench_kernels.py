"""Every operator is measured, and its floor follows from its bytes and its arithmetic."""

import json
import sys
from pathlib import Path

import pytest

import idlm_ds
from idlm_ds import kernels

from .test_prepare_data import run

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
import bench_kernels


def test_every_operator_has_a_time_and_a_floor(tmp_path, monkeypatch, capsys):
    out = tmp_path / "figures.json"
    sizes = {"rows": 2, "vocab": 40, "hidden": 64, "batch": 1, "length": 3, "rounds": 1}
    options = [word for name, value in sizes.items() for word in (f"--{name}", value)]
    assert run([*options, "--no-compile", "--json", out], monkeypatch, bench_kernels) == 0
    operators = json.loads(out.read_text())["operators"]
    table = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in table[2:]] == list(operators)
    for figures in operators.values():
        assert 0 < figures["floor"] < figures["reference"]
    # Two rows of 40 float32 scores, seven times over.
    assert operators["masked_gap"]["MB"] == pytest.approx(4 * 7 * 80 / 1e6)
    assert operators["masked_gap"]["floor"] == pytest.approx(4 * 7 * 80 / 3.35e6)
    # Twelve 16-bit rows of width 64 four times over, three means thrice, and a table of 40 rows.
    assert operators["soft_embedding"]["MB"] == pytest.approx(2 * 64 * (48 + 9 + 40) / 1e6)


def test_no_operator_is_left_out():
    from idlm_ds.kernels.cases import Sizes, cases

    folders = {path.parent.name for path in Path(kernels.__file__).parent.glob("*/reference.py")}
    assert {case.folder for case in cases(Sizes(), None)} == folders


@pytest.mark.parametrize(("flops", "expected"), [(67e6, 2.0), (67e12 * 3e-6, 3.0)])
def test_the_floor_is_the_slower_part(flops, expected):
    from idlm_ds.kernels.cases import Case

    case = Case(folder="", name="", inputs=tuple, bytes=6.7e6, flops=flops)
    assert bench_kernels.floor(case) == pytest.approx(expected)
