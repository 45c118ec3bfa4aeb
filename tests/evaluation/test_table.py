import csv
import io

import pytest

from idlm_ds.evaluation.page import RUN_COLUMNS
from idlm_ds.evaluation.table import to_csv, to_markdown, to_text, value_with_error
from tests.evaluation.rows import row

ROWS = [
    row("held-out", None, 16.0, gen_ppl_se=None),
    row("teacher", 32, 104.5),
    row("teacher (matched)", 4, 60.0, temperature=0.8),
    row("student", 4, None),
]


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (428.37, 14.4, "428 ± 14"),
        (98.04, 3.14, "98.0 ± 3.1"),
        (3.78941, 0.00691, "3.7894 ± 0.0069"),
        (2.772588, 0.0, "2.773 ± 0.000"),
        (16.0, None, "16 ± ?"),
        (132.24, float("nan"), "132.2 ± ?"),
    ],
)
def test_a_value_is_shown_to_the_second_digit_of_its_error(value, error, shown):
    assert value_with_error(value, error) == shown


def test_columns_are_aligned_and_carry_errors():
    header, rule, *lines = to_text(ROWS, RUN_COLUMNS).splitlines()
    assert len({len(line) for line in (header, rule, *lines)}) == 1
    end = header.index("GenPPL") + len("GenPPL")
    assert [line[:end].split()[-3:] for line in lines[:3]] == [
        ["16", "±", "?"],
        ["104.50", "±", "0.25"],
        ["60.00", "±", "0.25"],
    ]
    assert lines[2].startswith("teacher (matched)")
    assert lines[3][:end].endswith(" -")


def test_a_column_that_no_row_has_is_left_out():
    head, rule, *body = to_markdown(ROWS).splitlines()
    assert "MAUVE" not in head
    assert "judge" in head
    assert rule.startswith("| --- | --- | --- | ---: | ---: |")
    assert len(body) == len(ROWS)


def test_a_file_has_all_columns_of_all_rows():
    (first, second) = csv.DictReader(io.StringIO(to_csv([{"a": 1}, {"a": 2, "b": [3, 4]}])))
    assert first == {"a": "1", "b": ""}
    assert second == {"a": "2", "b": "[3, 4]"}
