"""Prompts of several lengths, and where a text ends."""

from dataclasses import replace

import pytest

from idlm_ds.errors import UserError
from idlm_ds.evaluation.completion import Speed
from idlm_ds.processes.udlm import UDLM
from idlm_ds.schedules.loglinear import LogLinear

from .writers import Counting, Scripted, completer, masked, tokenizer

LENGTH = 24
TEXT = " of the United States"
UNIFORM = UDLM(vocab_size=len(tokenizer()) + 1, schedule=LogLinear(1e-3))


def ids(text: str) -> list[int]:
    return tokenizer().encode([text])[0]


def script(*tokens: int) -> list[int]:
    """A row that begins so and goes on with something."""
    return [*tokens, *[ids(" the")[0]] * (LENGTH - len(tokens))]


def test_a_text_is_what_stands_between_the_prompt_and_the_first_end_of_text():
    prompt, written, eos = ids("The people"), ids(TEXT), tokenizer().eos_id
    network = Scripted(script(*prompt, *written, eos, *written, eos))
    (completed,) = completer(network, length=LENGTH).complete([prompt], [0], stream="t", batch=1)
    assert (completed.text, completed.tokens) == (TEXT, len(written))
    assert 1 <= completed.nfe <= 4


def test_an_end_of_text_in_the_prompt_ends_nothing_and_a_limit_does():
    eos, written = tokenizer().eos_id, ids(TEXT)
    prompt = [*ids("The people"), eos]
    model = completer(Scripted(script(*prompt, *written, eos)), length=LENGTH)
    completed = model.complete([prompt] * 2, [0, 1], stream="t", batch=2, most=[None, 2])
    assert [each.text for each in completed] == [TEXT, tokenizer().decode([written[:2]])[0]]
    assert [each.tokens for each in completed] == [len(written), 2]


class Spaceless:
    """A tokenizer that drops the space before the first word, as sentencepiece does."""

    def decode(self, rows: list[list[int]]) -> list[str]:
        return [text.removeprefix(" ") for text in tokenizer().decode(rows)]


def test_words_keep_the_space_they_have_behind_others():
    model = completer(Scripted(script()), length=LENGTH)
    model = replace(model, tokenizer=Spaceless())
    assert model.decode_behind(ids("The people"), ids(TEXT)) == TEXT
    assert model.decode_behind([], ids(TEXT)) == TEXT.removeprefix(" ")


def test_a_row_may_begin_with_the_token_that_opens_training_rows():
    model = completer(Scripted(script()), length=LENGTH, bos=True)
    assert model.encode("The people") == [tokenizer().frame[0], *ids("The people")]
    assert completer(Scripted(script()), length=LENGTH).encode("The") == ids("The")


PROMPTS = ["The", "", "Fellow-citizens of the Senate and House", "I have", "peace and war", "A"]


@pytest.mark.parametrize("process", [masked(), UNIFORM], ids=["mdlm", "udlm"])
def test_prompts_of_several_lengths_share_a_batch_and_nothing_else(process):
    model = completer(Counting(), length=LENGTH, process=process)
    prompts, samples = [model.encode(text) for text in PROMPTS], [*range(len(PROMPTS))]
    whole = model.complete(prompts, samples, stream="t", batch=len(prompts))
    assert len({c.text for c in whole}) == len(PROMPTS)
    for batch in (1, 4):
        assert model.complete(prompts, samples, stream="t", batch=batch) == whole
    order = [3, 0, 5, 2, 1, 4]
    mixed = model.complete(
        [prompts[i] for i in order], [samples[i] for i in order], stream="t", batch=3
    )
    assert mixed == [whole[i] for i in order]
    # Whole rows are drawn, and what is given stands in them.
    sampled = model.fill(prompts, samples, stream="t", batch=4)
    assert sampled.tokens.shape == (len(PROMPTS), LENGTH)
    for prompt, row in zip(prompts, sampled.tokens.tolist(), strict=True):
        assert row[: len(prompt)] == prompt


def test_a_prompt_that_spells_the_mask_is_refused_in_one_line():
    model = completer(Scripted(script()), length=LENGTH)
    with pytest.raises(UserError, match=r"^t: a text holds the mask: given: \d+ is no token"):
        model.fill([[0, masked().mask_id]], [0], stream="t", batch=1)


def test_speed_is_of_sequences_tokens_and_calls():
    first = Speed(count=2, tokens=30, nfe=10, seconds=4.0)
    both = first + Speed(count=2, tokens=10, nfe=6, seconds=1.0)
    assert both.figures() == {"nfe": 4.0, "tokens_per_forward": 2.5, "tokens_per_s": 8.0}
    assert str(both) == "4 sequences, NFE 4, tokens/forward 2.5, tokens/s 8"
    assert str(Speed(count=0, tokens=0, nfe=0, seconds=0.0)) == "0 sequences"
