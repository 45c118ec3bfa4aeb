import json
import math

import pytest

from idlm_ds.evaluation.page import Row, format_table, write_report


def row(model: str, steps: int | None, gen_ppl: float, **other) -> Row:
    fields = {
        "nfe": None if steps is None else float(steps),
        "sampler": "ancestral",
        "precision": "float64",
        "temperature": 1.0,
        "gen_ppl_se": 0.25,
        "entropy": 4.5,
        "entropy_se": 0.01,
        "distinct_2": 0.5,
        "seconds": None if steps is None else 1.25,
        "num_samples": 80,
        "judge": "tiny@0123456789ab",
        "seed": 7,
    }
    return Row(model=model, steps=steps, gen_ppl=gen_ppl, **(fields | other))


ROWS = [
    row("held_out", None, 16.0, gen_ppl_se=math.nan),
    row("teacher", 32, 104.5),
    row("teacher_matched", 4, 60.0, temperature=0.8),
    row("student", 4, 32.75, sampler="analytic"),
]


def write(folder, rows=ROWS, samples=None):
    samples = samples if samples is not None else {"teacher (32 steps)": ["one", "two"]}
    write_report(folder, rows, title="A run", settings={"recipe": "toy"}, samples=samples)


def test_report_json_gives_the_rows_back(tmp_path):
    write(tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["settings"] == {"recipe": "toy"}
    assert content["rows"][0].pop("gen_ppl_se") is None
    first, *others = content["rows"]
    assert Row(**first, gen_ppl_se=0.25) == row("held_out", None, 16.0)
    assert [Row(**fields) for fields in others] == ROWS[1:]


def test_the_page_holds_the_table_its_settings_and_the_picture(tmp_path):
    write(tmp_path)
    page = (tmp_path / "report.md").read_text()
    assert "| student | 4 | 4.0 | 32.75 ± 0.25 | 4.500 ± 0.010 |" in page
    assert "| teacher (matched) | 4 | 4.0 | 60.00 ± 0.25 |" in page
    assert "**judge** tiny@0123456789ab · **sampler** ancestral, analytic ·" in page
    assert "**seed** 7 · **samples** 80 · **recipe** toy" in page
    assert "(frontier.png)" in page
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_samples_cannot_break_the_page(tmp_path):
    write(
        tmp_path, samples={"student": ["# title\n```\n<b>\n\n" + "word " * 400, "", "c", "hidden"]}
    )
    shown = (tmp_path / "report.md").read_text().split("### student")[1]
    for line in shown.splitlines():
        assert not line or line.startswith(("    ", "**Sample"))
    assert "hidden" not in shown
    assert " …" in shown
    assert "(empty)" in shown


def test_files_are_replaced_and_nothing_is_left_behind(tmp_path):
    write(tmp_path)
    write(tmp_path, rows=ROWS[:2])
    assert len(json.loads((tmp_path / "report.json").read_text())["rows"]) == 2
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["frontier.png", "report.json", "report.md"]


def test_table_columns_are_aligned_and_carry_errors():
    header, rule, *lines = format_table(ROWS).splitlines()
    assert len({len(line) for line in (header, rule, *lines)}) == 1
    ends = [header.index("GenPPL") + len("GenPPL")] * 3
    assert [line[:end].split()[-3:] for line, end in zip(lines[1:], ends, strict=True)] == [
        ["104.50", "±", "0.25"],
        ["60.00", "±", "0.25"],
        ["32.75", "±", "0.25"],
    ]
    assert "16.0 ± ?" in lines[0]
    assert lines[2].startswith("teacher (matched)")


def test_rows_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="allowed: held_out, teacher, teacher_matched, student"):
        row("held-out", None, 3.0)
    with pytest.raises(ValueError, match="steps=None"):
        row("student", None, 3.0)
    with pytest.raises(ValueError, match="gen_ppl=nan"):
        row("student", 4, math.nan)


def test_a_report_of_no_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        write(tmp_path, rows=[])
    assert list(tmp_path.iterdir()) == []
