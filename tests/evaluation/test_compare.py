import json
from pathlib import Path
from typing import Any

import pytest

from idlm_ds.errors import UserError
from idlm_ds.evaluation.compare import ResultFile, columns, compare, read_results
from idlm_ds.evaluation.table import to_markdown


def row(value: float, error: float | None, steps: int = 8, **more: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "steps": steps,
        "judge": "j",
        "gen_ppl": value,
        "gen_ppl_se": error,
        **more,
    }


def difference(first: dict[str, Any], other: dict[str, Any]) -> str:
    files = [ResultFile("a", [first]), ResultFile("b", [other])]
    (compared,) = compare(files, ["gen_ppl"], ignore=[])
    return compared["b - a"]


@pytest.mark.parametrize(
    ("first", "other", "expected"),
    [
        # sqrt(3² + 4²) = 5, so that 10 is the edge of two standard errors.
        ((100.0, 3.0), (110.0, 4.0), "+10 ± 5 (within noise)"),
        ((100.0, 3.0), (110.1, 4.0), "+10.1 ± 5 (differs)"),
        ((110.1, 3.0), (100.0, 4.0), "-10.1 ± 5 (differs)"),
        ((100.0, None), (200.0, 4.0), "+100 (noise unknown)"),
    ],
)
def test_a_difference_is_held_against_its_own_error(first, other, expected):
    assert difference(row(*first), row(*other)) == expected


def test_rows_are_paired_by_setting_and_gaps_are_shown():
    a = ResultFile("a", [row(1.0, 0.1, 4), row(2.0, 0.1, 8)])
    b = ResultFile("b", [row(2.5, 0.1, 8), row(9.0, 0.1, 16)])
    rows = compare([a, b], ["gen_ppl"], ignore=[])
    assert [(r["steps"], r["a"], r["b"]) for r in rows] == [
        (4, "1.00 ± 0.10", None),
        (8, "2.00 ± 0.10", "2.50 ± 0.10"),
        (16, None, "9.00 ± 0.10"),
    ]
    assert [r["b - a"] for r in rows] == [None, "+0.5 ± 0.14 (differs)", None]
    assert "| - | 9.00 ± 0.10 | - |" in to_markdown(rows, columns(rows))


def test_settings_can_be_ignored_but_not_so_far_that_rows_collide():
    a = ResultFile("a", [row(1.0, 0.1)])
    b = ResultFile("b", [row(1.1, 0.1, model="n")])
    assert len(compare([a, b], ["gen_ppl"], ignore=[])) == 2
    (compared,) = compare([a, b], ["gen_ppl"], ignore=["model"])
    assert compared["b - a"].endswith("(within noise)")
    both = ResultFile("c", [*a.rows, *b.rows])
    with pytest.raises(UserError, match="^c: two rows of .*steps=8"):
        compare([both, a], ["gen_ppl"], ignore=["model"])


def test_an_unknown_metric_is_refused():
    with pytest.raises(UserError, match="^--metric: no file has 'bleu'$"):
        compare([ResultFile("a", [row(1.0, 0.1)])], ["bleu"], ignore=[])


@pytest.mark.parametrize("name", ["results.json", "report.json"])
def test_files_and_folders_are_read(name, tmp_path: Path):
    (tmp_path / name).write_text(json.dumps({"rows": [row(1.0, 0.1)]}))
    for path in (tmp_path, tmp_path / name):
        assert read_results(path).rows == [row(1.0, 0.1)]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": []}', '{"rows": [3]}'])
def test_a_file_without_rows_is_refused(text, tmp_path: Path):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=r"results\.json: "):
        read_results(tmp_path)
