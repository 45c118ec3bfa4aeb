import pytest

from idlm_ds.data.prepare.detokenize import lm1b


@pytest.mark.parametrize(
    ("apart", "together"),
    [
        ("See http : / / example.org now", "See http://example.org now"),
        ("See https : / / example.org now", "See https://example.org now"),
        ("It 's what they 'd say", "It's what they'd say"),
        ("He met Mr . Smith", "He met Mr. Smith"),
        ("They left early .", "They left early."),
        ("Who ? Me ?", "Who? Me?"),
        ("Stop ! Now !", "Stop! Now!"),
        ("one , two : three ; four", "one, two: three; four"),
        ("and / or", "and/or"),
        ('He said " never again " twice', 'He said "never again" twice'),
        ("the ' old ' way", "the 'old' way"),
        ("a ( small ) one", "a (small) one"),
        ("a [ small ] one", "a [small] one"),
        ("worth $ 5 or £ 4", "worth $5 or £4"),
        ("", ""),
        ("Nothing to do here", "Nothing to do here"),
    ],
)
def test_what_was_set_apart_is_joined(apart, together):
    assert lm1b(apart) == together


@pytest.mark.parametrize("text", ['" ' * 300_000, "( " * 300_000, " '" * 300_000, " a" * 300_000])
def test_hostile_text_takes_no_time(text):
    assert isinstance(lm1b(text), str)
