"""Answers found in texts, and what is never run to find them."""

import math

import pytest

from idlm_ds.metrics.answers import answer_in, is_same, wilson
from idlm_ds.metrics.arithmetic import evaluate


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She has 3 + 4 = 7 left.\n#### 7", 7),
        ("#### $1,234.50", 1234.5),
        ("#### -12 and 5 more\n#### 9", -12),
        ("so 18 in all. ####", None),
        ("The answer is 72.", 72),
        ("It costs $1,234,567.00.", 1234567),
        ("a list: 1,2,3", 3),
        ("12,5", 5),
        ("1234,567", 567),
        ("5-3", 3),
        ("it fell to -3", -3),
        ("-$5", -5),
        ("$-5", -5),
        ("of it, .5", 0.5),
        ("50% of them", 50),
        ("3.25.", 3.25),
        ("no number", None),
        ("9" * 400, None),
        ("", None),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_an_answer_is_the_marked_number_or_else_the_last(text, answer):
    assert answer_in(text) == answer


PROGRAM = '''def simple_math_problem() -> int:
    """
    Natalia sold clips to 48 friends in April
    return to sender, and half as many in May. How many in all?
    """
    april = 48
    may: float = april / 2
    total = april
    total += may
    result = total
    return result
'''


def test_a_program_s_answer_is_what_it_would_return():
    assert answer_in(PROGRAM) == 72
    assert answer_in(f"Here it is:\n{PROGRAM}and 5 more words (") == 72
    # What is marked counts first.
    assert answer_in(f"{PROGRAM}#### 5") == 5


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("return 7 // 2 + 7 % 4 - 2 ** 3 * -1", 14),
        ("return round(2 / 3, 2)", 0.67),
        ("return round(2.5)", 2),
        ("return int(7.9) + float(1) + abs(-2) + min(1, 2) + max(1, 2)", 13),
        ("return math.ceil(1.2) + math.floor(1.8) + ceil(0.5)", 4),
        ("return (1 +\n        2)", 3),
        ("return 10 ** 15", 10**15),
    ],
)
def test_arithmetic_is_that_of_python(line, value):
    assert evaluate(f"def f():\n    {line}\n") == value


@pytest.mark.parametrize(
    "lines",
    [
        "open('x', 'w')\n    return 1",
        "import os\n    return 1",
        "return __import__('os').getpid()",
        "return eval('1')",
        "return (lambda: 1)()",
        "return int('1')",
        "return [1, 2][0]",
        "x = y = 1\n    return x",
        "x, y = 1, 2\n    return x",
        "for i in range(3): pass\n    return 1",
        "while True: pass\n    return 1",
        "return 1 if 2 > 1 else 0",
        "return unknown",
        "return 9 ** 9 ** 9",
        "return 10 ** 16",
        "return 1e999",
        "return 2 ** -(10 ** 14)",
        "return round(5, -10 ** 9)",
        "return 1 << 60",
        "return 1 / 0",
        "return 0 ** -1",
        "return 0.001 ** -200",
        "return (-8) ** 0.5",
        "return True",
        "return 1j",
        "return 'seven'",
        "return abs(1, 2)",
        "return round(1, ndigits=2)",
        "return",
        "x = 1",
        "return (1",
        "return " + "(" * 5000,
        "return " + "-" * 20_000 + "1",
        "return " + "1 + " * 20_000 + "1",
    ],
    ids=lambda text: text[:40],
)
def test_a_program_that_is_not_understood_has_no_answer(lines):
    assert evaluate(f"def f():\n    {lines}\n") is None
    assert answer_in(f"def f():\n    {lines}\n") is None


def test_an_argument_has_no_value():
    assert evaluate("def f(x):\n    return x\n") is None


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        (72.0, 72.0, True),
        (0.1 + 0.2, 0.3, True),
        (72.001, 72.0, False),
        (None, 0.0, False),
        (1e-9, 0.0, True),
        (-72.0, 72.0, False),
    ],
)
def test_answers_are_compared_as_numbers(answer, reference, same):
    assert is_same(answer, reference) is same


def test_the_interval_is_wilson_s():
    # 8 of 10, from the textbook's formula.
    interval = wilson(0.8, 10)
    assert interval == pytest.approx((0.49016, 0.94331), abs=1e-5)
    assert wilson(0.0, 20)[0] == 0
    assert wilson(0.0, 20)[1] == pytest.approx(0.16113, abs=1e-5)
    assert wilson(1.0, 20)[0] == pytest.approx(1 - 0.16113, abs=1e-5)
    # Its ends are where the share is two of their own standard errors away.
    for end in interval:
        assert abs(0.8 - end) / math.sqrt(end * (1 - end) / 10) == pytest.approx(1.95996, rel=1e-5)
