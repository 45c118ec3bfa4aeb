"""The sampling program, on a random network."""

import json
import sys

import pytest

from idlm_ds.cli import launch

from .conftest import ROOT

sys.path.insert(0, str(ROOT / "launchers"))
import sample

PROMPT = "The people of the United States"


@pytest.fixture
def program(toy, monkeypatch, capsys):
    """Runs it in this process and returns exit code, standard output and error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        checkpoint = () if "--checkpoint" in arguments else ("--checkpoint", toy.folder / "teacher")
        monkeypatch.setattr(sys, "argv", ["sample.py", *map(str, (*checkpoint, *arguments))])
        with pytest.raises(SystemExit) as ended:
            launch(sample.main)
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


@pytest.fixture
def uniform_model(toy, tmp_path):
    """The same network under a family without a mask."""
    folder = tmp_path / "uniform"
    folder.mkdir()
    for path in (toy.folder / "teacher").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    card = json.loads((folder / "config.json").read_text())
    card["process"]["name"] = "udlm"
    (folder / "config.json").write_text(json.dumps(card))
    return folder


def written(program, toy, tmp_path, *arguments: object) -> dict:
    output = tmp_path / "samples.json"
    judged = ("--judge", toy.folder / "judge", "--output", output)
    code, _, err = program(*judged, *arguments)
    assert (code, err) == (0, "")
    return json.loads(output.read_text())


def test_texts_begin_with_the_prompt_and_say_how_they_were_drawn(program, toy, tmp_path):
    settings = ("--block", 2, "--steps", 4, "--remasking", "random", "--guidance", 0.5)
    content = written(
        program, toy, tmp_path, "--sampler", "blockwise", "--prompt", PROMPT, "--length", 8,
        "--num-samples", 5, "--batch-size", 2, *settings,
    )  # fmt: skip
    assert len(content["generated_seqs"]) == 5
    assert all(text.startswith(PROMPT) for text in content["generated_seqs"])
    assert len(set(content["generated_seqs"])) > 1
    provenance = content["provenance"]
    expected = {
        "sampler": "blockwise",
        "precision": "float64",
        "prompt": PROMPT,
        "block": 2,
        "temperature": 1.0,
        "remasking": "random",
        "guidance": 0.5,
        "steps": 4,
        "nfe": 8.0,
        "seed": 0,
        "num_samples": 5,
    }
    assert {k: provenance[k] for k in expected} == expected


def test_defaults_fill_a_training_sequence_in_one_block(program, toy, tmp_path):
    content = written(program, toy, tmp_path, "--sampler", "blockwise", "--num-samples", 2)
    expected = {
        "prompt": "",
        "block": 16,
        "remasking": "low_confidence",
        "guidance": 0.0,
        "nfe": 8.0,
    }
    assert {k: content["provenance"][k] for k in expected} == expected


def test_blocks_that_do_not_fill_the_rest_of_a_training_sequence_leave_it(program, toy, tmp_path):
    settings = ("--prompt", PROMPT, "--block", 4, "--steps", 4, "--num-samples", 2)
    content = written(program, toy, tmp_path, "--sampler", "blockwise", *settings)
    assert content["provenance"]["block"] == 4
    assert content["provenance"]["nfe"] == 4.0


def test_any_batch_draws_the_same_samples(program, toy, tmp_path):
    settings = ("--sampler", "blockwise", "--prompt", PROMPT, "--length", 8, "--steps", 4)
    texts = [
        written(program, toy, tmp_path, *settings, "--batch-size", batch)["generated_seqs"]
        for batch in (1, 3, 64)
    ]
    assert texts[0] == texts[1] == texts[2]


def test_at_temperature_0_blockwise_samples_are_one_sample(program, toy, tmp_path):
    settings = ("--sampler", "blockwise", "--length", 8, "--steps", 4, "--temperature", 0)
    content = written(program, toy, tmp_path, *settings, "--num-samples", 3)
    assert len(set(content["generated_seqs"])) == 1
    assert content["provenance"]["temperature"] == 0.0


def test_other_samplers_say_nothing_of_blocks(program, toy, tmp_path):
    content = written(program, toy, tmp_path, "--steps", 2, "--num-samples", 2, "--tail", "greedy")
    assert content["provenance"]["sampler"] == "ancestral+greedy"
    assert not {"prompt", "block", "remasking", "guidance"} & set(content["provenance"])


@pytest.mark.parametrize("sampler", ["ancestral", "analytic", "euler"])
@pytest.mark.parametrize(
    "more", [("--prompt", "A"), ("--prompt", ""), ("--block", 4), ("--remasking", "random"),
             ("--guidance", 0.0)], ids=str,
)  # fmt: skip
def test_options_of_blockwise_are_refused_with_other_samplers(program, sampler, more):
    code, _, err = program("--sampler", sampler, *more)
    assert code == 2
    assert err == f"error: {more[0]}: means nothing to --sampler {sampler}\n"


@pytest.mark.parametrize(
    "more", [("--tail", "greedy"), ("--precision", "float32"), ("--nucleus", 0.9)], ids=str
)
def test_options_of_other_samplers_are_refused_with_blockwise(program, more):
    code, _, err = program("--sampler", "blockwise", *more)
    assert code == 2
    assert err == f"error: {more[0]}: means nothing to --sampler blockwise\n"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--block", 5, "--length", 12), "--block: must divide length 12, got 5"),
        (("--block", 4, "--steps", 6), "--steps: must divide into 4 blocks, got 6"),
        (("--block", 0), "--block: must divide length 16, got 0"),
        (("--guidance", 1), "--guidance: must be 0 without a prompt, got 1.0"),
        (("--guidance", -1, "--prompt", "A"), "--guidance: must be 0 or more, got -1.0"),
        (("--temperature", -1), "--temperature: must be 0 or more, got -1.0"),
        (
            ("--prompt", 9 * PROMPT),
            "leave no room for a block in the 16 of a training sequence; pass a shorter prompt",
        ),
    ],
    ids=str,
)
def test_a_bad_argument_of_blockwise_is_named(program, more, message):
    code, _, err = program("--sampler", "blockwise", *more)
    assert code == 2
    assert err.startswith("error: --")
    assert err.count("\n") == 1
    assert message in err


def test_a_length_that_is_asked_for_may_go_beyond_training(program, toy, tmp_path):
    settings = ("--sampler", "blockwise", "--prompt", 9 * PROMPT, "--length", 4, "--steps", 2)
    content = written(program, toy, tmp_path, *settings, "--num-samples", 1)
    assert content["generated_seqs"][0].startswith(9 * PROMPT)


def test_temperature_0_is_for_blockwise_only(program):
    code, _, err = program("--temperature", 0)
    assert code == 2
    assert err == "error: --temperature: must be above 0, got 0.0\n"


@pytest.mark.parametrize("sampler", ["blockwise", "analytic", "euler"])
def test_a_family_without_a_mask_is_refused(program, uniform_model, sampler):
    code, _, err = program("--checkpoint", uniform_model, "--sampler", sampler)
    assert code == 2
    assert err == f"error: --sampler: {sampler} needs a masked family; use ancestral\n"


def test_nothing_is_loaded_for_settings_that_exclude_each_other(program):
    code, _, err = program("--sampler", "euler", "--precision", "float32")
    assert code == 2
    assert err == "error: --precision: euler draws in float64 only\n"
