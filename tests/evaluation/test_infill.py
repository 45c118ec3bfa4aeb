"""Texts with gaps: how they are laid out, and what is shown of them."""

import json
import sys
from pathlib import Path

import pytest

import idlm_ds
from idlm_ds.cli import launch
from idlm_ds.errors import UserError
from idlm_ds.evaluation.infill import parse, read_filled
from idlm_ds.evaluation.options import InfillOptions
from tests.toy_models import random_teacher

from .writers import Scripted, completer, tokenizer

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
import infill

LENGTH = 16


def options(**changes) -> InfillOptions:
    return InfillOptions(checkpoint="x", texts=["A"], gap=3, **changes)


def ids(text: str) -> list[int]:
    return tokenizer().encode([text])[0]


def laid_out(text: str, *, bos: bool = False, **changes):
    model = completer(Scripted([0] * LENGTH), length=LENGTH, bos=bos)
    return parse(text, options(**changes), model)


FREE = [None]
LAYOUTS = {
    "The ___ of": (ids("The") + 3 * FREE + ids(" of"), False),
    "___2 of ___1 the": (2 * FREE + ids(" of") + FREE + ids(" the"), False),
    "The ___2": (ids("The") + 2 * FREE, False),
    "The ___2___1": (ids("The") + 3 * FREE, False),
    "The ___": (ids("The") + (LENGTH - len(ids("The"))) * FREE, True),
    "The": (ids("The") + (LENGTH - len(ids("The"))) * FREE, True),
    "": (LENGTH * FREE, True),
    "The ___0": (ids("The") + 3 * FREE + ids("0"), False),
}


@pytest.mark.parametrize(("text", "expected"), LAYOUTS.items(), ids=LAYOUTS.keys())
def test_a_text_is_laid_out_as_tokens_and_gaps(text, expected):
    template = laid_out(text)
    assert (list(template.row), template.is_open) == expected
    inside = [i for gap in template.gaps for i in gap]
    assert inside == [i for i, token in enumerate(template.row) if token is None]
    framed = laid_out(text, bos=True).row
    assert framed[0] == tokenizer().frame[0]
    assert framed[1:] == (template.row[:-1] if template.is_open else template.row)


def test_a_whole_text_is_followed_by_its_end():
    eos = tokenizer().eos_id
    assert laid_out("The ___2 of", ends=True).row == ids("The") + 2 * FREE + ids(" of") + [eos]
    assert laid_out("The ___", ends=True).row == laid_out("The ___").row


@pytest.mark.parametrize(
    "text", ["The ___16", "The ___8 of ___8", 20 * "The ", 16 * "The " + "___"]
)
def test_a_text_that_does_not_fit_is_refused(text):
    with pytest.raises(UserError, match=r"^--text: 'The .* tokens or more, a sequence has 16$"):
        laid_out(text)


@pytest.mark.parametrize("bos", [False, True])
def test_fills_are_shown_in_brackets_and_the_rest_of_the_sequence_is_not(bos):
    head, eos = [tokenizer().frame[0]] * bos, tokenizer().eos_id
    model = completer(Scripted([0] * LENGTH), length=LENGTH, bos=bos)
    known, fill = ids("The"), ids(" United States")
    template = parse(f"The ___{len(fill)} of", options(), model)
    row = [*head, *known, *fill, *ids(" of"), *ids(" war")]
    filled = read_filled(template, [*row, *[5] * (LENGTH - len(row))], model)
    assert filled.text == "The United States of"
    assert filled.shown == "The[ United States] of"
    assert filled.fills == [" United States"]
    assert filled.tokens == len(fill)
    template = parse("The ___", options(), model)
    row = [*head, *known, *fill, eos, *ids(" war")]
    filled = read_filled(template, [*row, *[5] * (LENGTH - len(row))], model)
    assert (filled.text, filled.shown) == ("The United States", "The[ United States]")
    assert filled.tokens == len(fill)


@pytest.fixture(scope="module", params=["mdlm", "udlm"])
def teacher(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("infill") / request.param
    random_teacher(folder, tokenizer(), family=request.param)
    return folder


@pytest.fixture
def program(teacher, monkeypatch, capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        command = ["infill.py", "--checkpoint", teacher, *arguments]
        monkeypatch.setattr(sys, "argv", [str(word) for word in command])
        with pytest.raises(SystemExit) as ended:
            launch(infill.main)
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


TEXTS = ("The ___2 of the", "peace ___ and ___1 war", "I have ___")


def test_what_fills_a_text_depends_on_no_other_text_and_no_batch(program, tmp_path):
    results = []
    for texts, batch in ((TEXTS, 32), (TEXTS[::-1], 2), (TEXTS[1:2], 1)):
        output = tmp_path / f"{batch}.json"
        settings = ("--num-samples", 3, "--steps", 3, "--batch-size", batch, "--output", output)
        code, out, err = program("--text", *texts, *settings)
        assert (code, err) == (0, "")
        assert out.count("| ") == 3 * len(texts)
        assert "3 steps, ancestral: " in out
        content = json.loads(output.read_text())
        assert content["provenance"]["nfe"] > 0
        assert content["generated_seqs"] == [item["text"] for item in content["items"]]
        for item in content["items"]:
            for part in item["template"].replace("___2", "___").replace("___1", "___").split("___"):
                assert part.rstrip(" ") in item["text"]
        results.append({(i["template"], i["text"]) for i in content["items"]})
    assert results[0] == results[1] >= results[2]
    assert len(results[2]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--text", "A ___", "--gap", 0), "--gap: must be at least 1, got 0"),
        (("--text", "A", "--num-samples", 0), "--num-samples: must be at least 1, got 0"),
        (("--text", "A", "--steps", 0), "--steps: must be at least 1, got 0"),
        (("--text", "A ___99"), "--text: 'A ___99' and its gaps take"),
        (("--text", "A", "--sampler", "euler", "--nucleus", 0.5), "--temperature, nucleus: euler"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_in_one_line(program, arguments, message):
    code, _, err = program(*arguments)
    assert code == 2
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
