"""Plain values in and out, and everything YAML can do beyond them refused."""

import pytest

from idlm_ds.recipes.errors import RecipeError
from idlm_ds.recipes.strict_yaml import read_yaml, write_yaml

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[off, no, yes, on, y]", ["off", "no", "yes", "on", "y"]),
        ("[true, False, null, ~]", [True, False, None, None]),
        ("[0, -7, +7, 1_000]", [0, -7, 7, 1000]),
        ("[010, 0x1F, 1:30, 2024-01-01]", ["010", "0x1F", "1:30", "2024-01-01"]),
        ("[1.5, -.inf, 1., .5, 2.5e-3]", [1.5, float("-inf"), 1.0, 0.5, 0.0025]),
        ("a: {b: [1]}", {"a": {"b": [1]}}),
    ],
)
def test_plain_words_mean_what_they_look_like(text, value):
    read = read_yaml(text, "f")
    assert read == value
    if isinstance(value, list):
        assert [type(item) for item in read] == [type(item) for item in value]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 1\n", "line 2: duplicate key a"),
        ("optim: {lr: 1, lr: 2}\n", "line 1: duplicate key lr"),
        ('a: 1\n"a": 2\n', "line 2: duplicate key a"),
        (BOMB, "line 1: anchors and aliases are refused"),
        ("a: *b\n", "line 1: anchors and aliases are refused"),
        ("a: !!python/object/apply:os.getcwd []\n", "line 1: tag tag:yaml.org,2002:python/object"),
        ("!!python/object:os.x\n", "line 1: tag tag:yaml.org,2002:python/object:os.x is refused"),
        ("a: !!str 3\n", "line 1: tag tag:yaml.org,2002:str is refused"),
        ("a: !own 3\n", "line 1: tag !own is refused"),
        ("a: [1, 2\n", "line 2: "),
        ("a: 1\n\tb: 2\n", "line 2: "),
        ("a: 1\n---\nb: 2\n", "line 2: "),
        ("1: a\n", "line 1: a key must be text"),
        ("? [a]\n: b\n", "line 1: a key must be text"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("[" * 5000, "nested too deeply"),
        ("a: \x00\n", "not YAML: "),
    ],
)
def test_what_is_not_plain_yaml_is_refused_in_one_line(text, problem):
    with pytest.raises(RecipeError) as caught:
        read_yaml(text, "toy.yaml")
    line = str(caught.value)
    assert line.startswith(f"toy.yaml: {problem}")
    assert len(line) <= 200
    assert line.isprintable()


@pytest.mark.parametrize(
    "word",
    ["off", "010", "1e5", "1.0e5", "+.5", "1:30", "2024-01-01", "null", "~", "=", "<<", ".nan"]
    + ["1_0.5", "1._5", "a: b", "#x", " x ", "", "é 語 😀", "a\nb", "\x07", "'", '"', "- x"]
    + ["*x", "&x", "!x", "?", "x " * 300],
)
def test_any_text_survives_being_written_and_read(word):
    assert read_yaml(write_yaml({"a": word, "b": [word]}), "f") == {"a": word, "b": [word]}


@pytest.mark.parametrize("number", [1e-8, 1e22, 5e-324, 0.1 + 0.2, 1 / 3, 1e16, -0.5, 10**18, -3])
def test_numbers_survive_being_written_and_read_to_the_last_bit(number):
    (read,) = read_yaml(write_yaml([number]), "f")
    assert (read, type(read)) == (number, type(number))


def test_equal_lists_are_written_out_twice_not_aliased():
    steps = [4, 8]
    assert write_yaml({"a": steps, "b": steps}) == "a: [4, 8]\nb: [4, 8]\n"
