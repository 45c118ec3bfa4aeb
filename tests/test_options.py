"""Options as fields of dataclasses."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from idlm_ds.errors import UserError
from idlm_ds.options import AT_LEAST_1, SHARE, Options, add_options, option, read_options


@dataclass(frozen=True, kw_only=True)
class Inner(Options):
    """What belongs together."""

    kinds: Sequence[Literal["a", "b"]] = option(("a",), "of something", flag="--kind")
    share: float | None = option(None, "of all", rule=SHARE)


@dataclass(frozen=True, kw_only=True)
class Outer(Options):
    """A program's options."""

    count: int = option(3, "of things", rule=AT_LEAST_1)
    sizes: Sequence[int] = option((1, 2), "of things", rule=AT_LEAST_1)
    path: Path = option(about="to things")
    is_quick: bool = option(False, "hurry")
    with_end: bool = option(True, "leave the end out", flag="--no-end")
    inner: Inner = Inner()


def parse(*argv: str) -> Outer:
    parser = argparse.ArgumentParser()
    add_options(parser, Outer)
    return read_options(Outer, vars(parser.parse_args(argv)))


def test_defaults_are_those_of_the_fields():
    assert parse("--path", "x") == Outer(path=Path("x"))


def test_values_have_the_types_of_the_fields():
    argv = "--path x --count 4 --sizes 5 6 --is-quick --no-end --kind b a --share 0.5"
    assert parse(*argv.split()) == Outer(
        path=Path("x"),
        count=4,
        sizes=(5, 6),
        is_quick=True,
        with_end=False,
        inner=Inner(kinds=("b", "a"), share=0.5),
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--count 0", "--count: must be at least 1, got 0"),
        ("--sizes 2 0", "--sizes: must be at least 1, got 0"),
        ("--share nan", r"--share: must be in \(0, 1\], got nan"),
    ],
)
def test_a_value_out_of_range_is_named_by_its_flag(argv, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        parse("--path", "x", *argv.split())


@pytest.mark.parametrize("argv", [[], ["--path", "x", "--kind", "c"]])
def test_what_is_missing_or_no_choice_is_refused(argv, capsys):
    with pytest.raises(SystemExit):
        parse(*argv)
    assert ("--path" if not argv else "invalid choice: 'c'") in capsys.readouterr().err


def test_help_shows_defaults_and_groups():
    parser = argparse.ArgumentParser(prog="program")
    add_options(parser, Outer)
    text = " ".join(parser.format_help().split())
    for part in ("of things (default: 1 2)", "What belongs together:", "--kind {a,b} [{a,b} ...]"):
        assert part in text
    assert "None" not in text
