import json

import pytest

from idlm_ds.evaluation.compare import read_results
from idlm_ds.evaluation.page import comparisons, shared_by_rows, write_report
from tests.evaluation.rows import row

ROWS = [
    row("held-out", None, 16.0, gen_ppl_se=None),
    row("teacher", 32, 104.5),
    row("teacher (matched)", 4, 60.0, temperature=0.8),
    row("student", 4, 32.75, sampler="analytic"),
]


def write(folder, rows=ROWS, samples=None):
    samples = samples if samples is not None else {"teacher (32 steps)": ["one", "two"]}
    write_report(folder, rows, title="A run", settings={"recipe": "toy"}, samples=samples)


def test_report_json_gives_the_rows_back(tmp_path):
    write(tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content == {"settings": {"recipe": "toy"}, "rows": ROWS}
    assert read_results(tmp_path).rows == ROWS


def test_the_page_holds_the_table_its_settings_and_the_picture(tmp_path):
    write(tmp_path)
    page = (tmp_path / "report.md").read_text()
    assert "| held-out | - | - | 16 ± ? | 4.500 ± 0.010 |" in page
    assert "| student | 4 | 4 | 32.75 ± 0.25 | 4.500 ± 0.010 |" in page
    assert "| teacher (matched) | 4 | 4 | 60.00 ± 0.25 |" in page
    assert "**judge** tiny@0123456789ab · **sampler** ancestral, analytic ·" in page
    assert "**seed** 7 · **tokens a sample** 16 · **samples a row** 80 · **recipe** toy" in page
    assert "(frontier.png)" in page
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


MATCH = {
    "matched_in": "entropy",
    "matched_to_steps": 8,
    "student_minus_matched": 11.6,
    "student_minus_matched_se": 4.2,
    "verdict": "above",
    "not_matched": None,
}


def test_page_and_console_say_how_the_student_compares_with_each_control(tmp_path):
    missed = MATCH | {"not_matched": "too far"}
    rows = [
        row("student", 8, 86.3),
        row("teacher (matched)", 1024, 74.7, **MATCH),
        row("teacher (matched in distinct-2)", 1024, None, **missed),
    ]
    lines = [
        "student at 8 steps - teacher (matched) at 1024 steps: GenPPL 11.6 ± 4.2: "
        "the student is above",
        "teacher (matched in distinct-2) at 1024 steps: no match: too far",
    ]
    assert comparisons(rows) == lines
    write(tmp_path, rows=rows)
    page = (tmp_path / "report.md").read_text()
    assert all(f"\n\n{line}\n\n" in page for line in lines)
    assert "| 11.6 ± 4.2 | above |" in page


def test_what_rows_share_is_said_once_under_their_table():
    assert shared_by_rows(ROWS) == {
        "judge": "tiny@0123456789ab",
        "sampler": "ancestral, analytic",
        "precision": "float64",
        "seed": "7",
        "tokens a sample": "16",
        "samples a row": "80",
    }


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


def test_a_report_of_no_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        write(tmp_path, rows=[])
    assert list(tmp_path.iterdir()) == []
