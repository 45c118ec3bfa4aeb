"""Scores of sets."""

import math

import pytest
import torch

from idlm_ds.errors import UserError
from idlm_ds.evaluation.score import score_set
from tests.evaluation.test_genppl import ALONE
from tests.metrics.judges import bigram_judge


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_score_that_is_not_finite_costs_a_line_and_no_traceback(value):
    table = torch.zeros(3, 3)
    scores = score_set(bigram_judge(table.clone()), ["1 2 1", "2"], ranks=ALONE)
    assert scores.nats.tolist() == pytest.approx([2 * math.log(3), 0.0])
    table[1, 0] = value
    with pytest.raises(UserError, match=r"^judge bigram: the score of a text is not finite; use"):
        score_set(bigram_judge(table), ["1 2 1", "2"], ranks=ALONE)
