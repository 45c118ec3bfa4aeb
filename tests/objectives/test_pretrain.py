import math

import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.objectives.pretrain import Nelbo, NextToken
from idlm_ds.processes.base import Read
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.schedules.loglinear import LogLinear
from tests.heads import ScoresOf

from ..tolerances import assert_close, within_standard_errors

V, MASK = 6, 5


class Bigram:
    """A network whose answer at a position is a function of the token there."""

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        del sigma
        return read(ScoresOf(lambda positions: self.table[x.flatten()[positions]]))


UNIFORM = Bigram(torch.zeros(V, V))


@pytest.fixture
def nelbo() -> Nelbo:
    return Nelbo(MDLM(vocab_size=V, schedule=LogLinear(eps=1e-3), mask_id=MASK))


def words(batch: int, length: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, MASK, (batch, length), generator=generator)


def test_nelbo_of_the_uniform_answer_is_log_vocab_per_token(nelbo, generator):
    batch, length = 2000, 40
    t = (torch.arange(batch, dtype=torch.float64) + 0.5) / batch
    tokens = words(batch, length, generator)
    nats = nelbo.nats(UNIFORM, tokens, t, noise=Noise(range(batch)))[0]
    got = nats.double().sum().item() / (batch * nelbo.num_scored(length))
    se = math.log(V - 1) * math.sqrt(((1 - t) / t).mean().item() / (batch * length))
    assert within_standard_errors(got, 0.999 * math.log(V - 1), se)


def test_nelbo_of_an_answer_at_one_time_is_its_cross_entropy_over_t(nelbo, generator):
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5, 3.0], dtype=torch.float64)
    tokens = torch.full((3, 50), 2)
    t = torch.tensor([0.125, 0.5, 1.0], dtype=torch.float64)
    nats = nelbo.nats(Bigram(scores.expand(V, V)), tokens, t, noise=Noise(range(3)))[0]
    one_word = -scores[:MASK].log_softmax(-1)[2].item()
    counts = [int((nats == value).sum()) for value in nats.unique()]
    assert_close(nats.unique(), one_word / t.flip(0))
    assert sum(counts) == len(nats)
    # Sorted by value: t = 1, 1/2, 1/8.
    assert counts[0] > counts[1] > counts[2] > 0


def test_nelbo_counts_visible_positions_and_next_token_does_not_count_the_first(nelbo):
    assert nelbo.num_scored(16) == 16
    assert NextToken().num_scored(16) == 15


def test_next_token_of_the_uniform_answer_is_log_vocab(generator):
    tokens = words(3, 7, generator)
    nats = NextToken().nats(UNIFORM, tokens, torch.zeros(3), noise=Noise(range(3)))[0]
    assert_close(nats, torch.full((3 * NextToken().num_scored(7),), math.log(V)))


def test_next_token_scores_each_token_by_the_one_before_it(generator):
    tokens = words(4, 5, generator)
    table = torch.randn(V, V, generator=generator)
    nats = NextToken().nats(Bigram(table), tokens, torch.zeros(4), noise=Noise(range(4)))[0]
    log_probs = table.log_softmax(-1)
    expected = [
        -log_probs[before, after].item()
        for row in tokens.tolist()
        for before, after in zip(row[:-1], row[1:], strict=True)
    ]
    assert_close(nats, torch.tensor(expected))


def test_next_token_uses_neither_time_nor_noise(generator):
    tokens = words(2, 5, generator)
    model = Bigram(torch.randn(V, V, generator=generator))
    first = NextToken().nats(model, tokens, torch.zeros(2), noise=Noise([0, 1]))[0]
    assert NextToken().nats(model, tokens, torch.ones(2), noise=Noise([5, 6]))[0].equal(first)
