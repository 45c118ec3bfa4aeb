"""Figures of a set that only its tail, or only its texts, give away."""

import math

import pytest
import torch

from idlm_ds.evaluation.draw import SampleSet
from idlm_ds.evaluation.row import sample_columns
from tests.evaluation.test_matching import judged

HEALTHY, FIGURES = "the united states of america", "1,000 2,000 3,000"


def columns(num_collapsed: int) -> dict:
    """Of 100 samples of 32 tokens, some of which are one token repeated."""
    tokens = torch.arange(32).repeat(100, 1)
    tokens[:num_collapsed] = 7
    texts = [FIGURES] * num_collapsed + [HEALTHY] * (100 - num_collapsed)
    samples = SampleSet(tokens=tokens, texts=texts, nfe=None, seconds=None, machine={})
    return sample_columns([judged(4.0, 3.0).cell], [samples])


def test_a_few_collapsed_samples_show_in_the_tail_and_hardly_in_the_mean():
    healthy, collapsed = columns(0), columns(7)
    assert collapsed["entropy"] > 0.92 * healthy["entropy"]
    assert healthy["entropy_p5"] == pytest.approx(healthy["entropy"])
    assert collapsed["entropy_p5"] == 0


def test_digit_strings_are_counted():
    assert (columns(0)["digit_strings"], columns(7)["digit_strings"]) == (0.0, 0.07)


def test_the_entropy_of_words_is_averaged_over_texts():
    healthy, figures = columns(0)["word_entropy"], columns(100)["word_entropy"]
    # Five words once each; 000 three times and 1, 2 and 3 once.
    shares = torch.tensor([3, 1, 1, 1]).double() / 6
    assert healthy == pytest.approx(math.log(5))
    assert figures == pytest.approx(torch.special.entr(shares).sum().item())
    assert columns(50)["word_entropy"] == pytest.approx((healthy + figures) / 2)
