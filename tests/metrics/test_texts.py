import math

import pytest

from idlm_ds.metrics.texts import is_digit_string, word_entropy, words_of


def test_words_are_runs_of_letters_and_digits_in_lower_case():
    text = "It's  3,000\nMEN_and Zoë--it is."
    assert words_of(text) == ["it", "s", "3", "000", "men", "and", "zoë", "it", "is"]


def test_the_entropy_of_words_is_that_of_their_frequencies():
    texts = ["the the the", "One, one; two: TWO", "a b c d e", "--", "a a a b"]
    fourths = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    expected = [0.0, math.log(2), math.log(5), 0.0, fourths]
    assert word_entropy(texts).tolist() == pytest.approx(expected)


def test_the_entropy_of_words_does_not_see_how_they_are_separated():
    assert word_entropy(["to be or not to be"]) == word_entropy(["To be, or (not)\n to be!"])


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("1,000,000; $2.50", True),
        ("we owe 12,500,000 and 3", True),
        ("In 1848 the revenue was $35,436,750.", True),
        ("In 1848 there was a revenue.", False),
        ("123xxxxxxx", False),
        ("1234xxxxxx", True),
        ("", False),
    ],
)
def test_a_digit_string_has_more_than_three_tenths_of_digits(text, is_one):
    assert is_digit_string(text) == is_one
