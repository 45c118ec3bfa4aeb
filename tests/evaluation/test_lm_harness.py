"""Requests of an evaluation harness."""

import pytest
import torch

from idlm_ds.errors import UserError
from idlm_ds.evaluation.lm_harness import Harness, HarnessOptions
from idlm_ds.metrics.continuation import continuation_bound, is_greedy
from idlm_ds.noise import Noise, derive_seed
from idlm_ds.processes.udlm import UDLM
from idlm_ds.schedules.loglinear import LogLinear
from tests.toy_models import random_teacher

from .writers import Counting, Scripted, completer, masked, tokenizer

LENGTH = 24
OPTIONS = HarnessOptions(pretrained="x", mc_samples=8, batch=3)
MASK = masked().mask_id


def ids(text: str) -> list[int]:
    return tokenizer().encode([text])[0]


def harness(network=None, *, bos: bool = False, process=None, **changes) -> Harness:
    fields = {f: getattr(OPTIONS, f) for f in OPTIONS.__dataclass_fields__} | changes
    model = completer(network or Counting(), length=LENGTH, bos=bos, process=process)
    return Harness(model, HarnessOptions(**fields))


REQUESTS = [
    ("The people", {"until": ["\n"], "max_gen_toks": 4}),
    ("I have", {"until": []}),
    ("The people", {"until": ["\n"], "max_gen_toks": 4}),
    ("of the United States of America", {"max_gen_toks": 2}),
    ("", {"until": "\n"}),
]


def test_a_text_depends_on_its_request_and_how_often_it_came():
    whole = harness().generate(REQUESTS, quiet=True)
    assert whole[0] != whole[2]
    for batch in (1, 32):
        assert harness(batch=batch).generate(REQUESTS, quiet=True) == whole
    assert harness().generate(REQUESTS[3:], quiet=True) == whole[3:]
    assert harness().generate(REQUESTS[::-1], quiet=True)[:2] == whole[:2:-1]


def script(*tokens: int) -> list[int]:
    return [*tokens, *[ids(" the")[0]] * (LENGTH - len(tokens))]


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"until": [" war"]}, " peace and"),
        ({"until": " war"}, " peace and"),
        ({"until": [" war", " and"]}, " peace"),
        ({"until": ["", "zzz"], "max_gen_toks": 2}, " peace and"),
        ({"max_gen_toks": 4}, " peace and war and"),
        ({}, " peace and war and war"),
    ],
    ids=str,
)
def test_a_text_ends_where_its_request_says(kwargs, text):
    tokens = [*ids("The"), *ids(" peace and war and war"), tokenizer().eos_id]
    assert harness(Scripted(script(*tokens))).generate([("The", kwargs)], quiet=True) == [text]


def test_tokens_count_as_far_as_a_text_is_handed_back():
    tokens = [*ids("The"), *ids(" peace and war and war"), tokenizer().eos_id]
    model = harness(Scripted(script(*tokens)))
    model.generate([("The", {"until": [" war"]})], quiet=True)
    assert model.spent["generate_until"].tokens == len(ids(" peace and"))


def test_what_a_request_cannot_settle_is_said_once(capsys):
    kwargs = {"until": [], "do_sample": False, "temperature": 0.0}
    harness().generate([("The", kwargs), ("A", kwargs)], quiet=True)
    assert capsys.readouterr().out.count("do_sample, temperature; model_args decide") == 1


class Seeing(Scripted):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__([0] * LENGTH)
        self.seen: list[list[int]] = []

    def __call__(self, x, sigma, read, /):
        self.seen += x.tolist()
        return super().__call__(x, sigma, read)


LONG = 10 * "of the people and war "


@pytest.mark.parametrize(("bos", "most", "free"), [(False, 5, 5), (True, 5, 5), (True, 500, 12)])
def test_a_long_prompt_is_cut_on_the_left_to_leave_room(bos, most, free):
    network = Seeing()
    harness(network, bos=bos).generate([(LONG, {"max_gen_toks": most})], quiet=True)
    head = [tokenizer().frame[0]] * bos
    kept = [*head, *ids(LONG)[len(ids(LONG)) - (LENGTH - free - len(head)) :]]
    assert network.seen[0] == kept + [MASK] * free


def expected(row: list[int], first: int, count: int, name: tuple) -> tuple[float, bool]:
    asked = torch.arange(first, first + count)
    noise = Noise([derive_seed(0, "likelihood", *name)])
    arguments = (masked(), Counting(), torch.tensor(row), asked)
    bound = continuation_bound(*arguments, draws=8, noise=noise, batch=3)
    return bound.nats, is_greedy(*arguments)[0]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("pad", [False, True])
def test_a_continuation_is_scored_among_masks_that_fill_the_sequence(bos, pad):
    pair = ("The people of the ", "United States and war")
    head = [tokenizer().frame[0]] * bos + ids("The people of the")
    scored = ids(" United States and war")
    row = [*head, *scored]
    row += [MASK] * (LENGTH - len(row)) * pad
    (answer,) = harness(bos=bos, pad=pad).score([pair], quiet=True)
    assert answer == expected(row, len(head), len(scored), pair)


def test_a_score_depends_on_no_other_request():
    pairs = [("The", " people of the United States"), ("A", ""), ("", "war"), ("A", " war")]
    whole = harness().score(pairs, quiet=True)
    assert whole[1] == (0.0, True)
    assert harness(batch=32).score(pairs[::-1], quiet=True)[::-1] == [
        (pytest.approx(nats, abs=1e-9), greedy) for nats, greedy in whole
    ]


def test_a_long_context_is_cut_on_the_left_and_a_long_continuation_is_refused():
    scored = ids(" war")
    context = ids(LONG.rstrip())
    row = [*context[len(context) - (LENGTH - len(scored)) :], *scored]
    (answer,) = harness().score([(LONG.rstrip(), " war")], quiet=True)
    assert answer == expected(row, LENGTH - len(scored), len(scored), (LONG.rstrip(), " war"))
    with pytest.raises(UserError, match="tokens to be scored, but a sequence has 24"):
        harness().score([("A", LONG)], quiet=True)


def test_whether_a_continuation_is_greedy_is_found_out_only_if_asked():
    sure = Scripted(script(*ids("The"), *ids(" war")))
    pairs = [("The", " war"), ("The", " people")]
    assert [greedy for _, greedy in harness(sure).score(pairs, quiet=True)] == [True, False]
    assert [g for _, g in harness(sure, check_greedy=False).score(pairs, quiet=True)] == [False] * 2


def test_a_whole_text_is_scored_in_pieces_that_fill_a_sequence():
    text = 5 * "of the people and war "
    tokens = ids(text)
    assert len(tokens) > LENGTH
    pieces = [tokens[i : i + LENGTH] for i in range(0, len(tokens), LENGTH)]
    total = 0.0
    for i, piece in enumerate(pieces):
        row = piece + [MASK] * (LENGTH - len(piece))
        total += expected(row, 0, len(piece), (text, i * LENGTH))[0]
    assert harness().score_whole([text, ""], quiet=True) == [pytest.approx(total, abs=1e-9), 0.0]


def test_uniform_families_write_but_score_nothing():
    uniform = UDLM(vocab_size=MASK + 1, schedule=LogLinear(1e-3))
    model = harness(process=uniform)
    assert len(model.generate(REQUESTS, quiet=True)) == len(REQUESTS)
    with pytest.raises(UserError, match="^loglikelihood: needs a masked family"):
        model.score([("A", " war")], quiet=True)


def test_costs_are_told_by_kind_of_request(capsys):
    model = harness(Scripted(script(*ids("The"), *ids(" war"), tokenizer().eos_id)))
    for _ in range(2):
        model.generate([("The", {})], quiet=True)
    model.score([("The", " war")], quiet=True)
    info = model.info()["idlm_ds"]
    assert info["pretrained"] == "x"
    assert info["device"] == "cpu"
    assert model.spent["generate_until"].count == 2
    assert model.spent["generate_until"].tokens == 2 * len(ids(" war"))
    assert 1 <= info["generate_until"]["nfe"] <= 4
    assert info["generate_until"]["tokens_per_s"] > 0
    count = len(ids(" war"))
    assert info["loglikelihood"]["nfe"] == 2**count - 1 + count
    assert "generate_until: 1 sequences, NFE " in capsys.readouterr().out


def test_arguments_are_those_that_people_type(tmp_path):
    random_teacher(tmp_path / "teacher", tokenizer())
    typed = {"pretrained": str(tmp_path / "teacher"), "steps": 3, "mc_samples": 4}
    added = {"batch_size": 1, "max_batch_size": None, "device": "cuda:0"}
    model = Harness.from_arguments(typed | added)
    assert (model.model.length, model.model.config.steps, model.options.batch) == (16, 3, 32)
    assert Harness.from_arguments(typed | {"batch_size": "6"}).options.batch == 6
    assert Harness.from_arguments(typed | {"batch_size": "auto"}).options.batch == 32
    assert Harness.from_arguments(typed | {"batch_size": 6, "batch": 1}).options.batch == 1
    (nats, _), (worse, _) = model.score([("A", " war"), ("A", " war and peace")], quiet=True)
    assert worse < nats < 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "model_args.pretrained: missing required key"),
        ({"pretrained": "x", "stepz": 3}, "model_args.stepz: unknown key; did you mean steps?"),
        ({"pretrained": "x", "steps": 1.5}, "model_args.steps: expected an integer, got 1.5"),
        ({"pretrained": "x", "sampler": "best"}, "model_args.sampler: expected one of ancestral"),
        ({"pretrained": "x", "mc_samples": 0}, "mc_samples: must be at least 1, got 0"),
        ({"pretrained": "nowhere"}, "--checkpoint: no such file or folder: nowhere"),
    ],
    ids=str,
)
def test_a_bad_argument_is_named(arguments, message):
    with pytest.raises(UserError, match=f"^{message}"):
        Harness.from_arguments(arguments)
