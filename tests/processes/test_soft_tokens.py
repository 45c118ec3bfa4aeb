import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.soft_tokens import SoftTokens

from ..tolerances import assert_close, assert_frequencies

BATCH, LENGTH, V = 3, 5, 4
POSITIONS = torch.tensor([0, 3, 4, 5, 11])
EVERYWHERE = torch.arange(BATCH * LENGTH)


def random_soft(generator: torch.Generator, dtype: torch.dtype = torch.float64) -> SoftTokens:
    tokens = torch.randint(0, V, (BATCH, LENGTH), generator=generator)
    scores = torch.randn(len(POSITIONS), V, generator=generator, dtype=dtype)
    return SoftTokens(tokens, POSITIONS, scores.softmax(-1).requires_grad_())


def dense(x: SoftTokens) -> Tensor:
    """The whole (B, L, V) simplex, one-hot where the sequence is hard."""
    rows = F.one_hot(x.tokens.flatten(), V).to(x.probs.dtype)
    rows = rows.index_copy(0, x.positions, x.probs)
    return rows.view(*x.tokens.shape, V)


anywhere = pytest.mark.parametrize(
    "at",
    [EVERYWHERE, EVERYWHERE[:0], POSITIONS, torch.tensor([1, 2, 6]), torch.tensor([11, 2, 3])],
    ids=["everywhere", "nowhere", "soft", "hard", "out of order"],
)


def assert_same_gradient(got: Tensor, expected: Tensor, x: SoftTokens, generator) -> None:
    weights = torch.randn(len(got), generator=generator, dtype=got.dtype)
    grad, want = (
        torch.autograd.grad((y * weights).sum(), x.probs, retain_graph=True)[0]
        for y in (got, expected)
    )
    assert_close(grad, want)


@anywhere
def test_expectation_and_its_gradients_are_those_of_the_dense_simplex(at, generator):
    x = random_soft(generator)
    values = torch.randn(len(at), V, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.randn(len(at), generator=generator, dtype=torch.float64)

    expected = (dense(x).flatten(0, 1)[at] * values).sum(-1)
    got = x.expect(values, at)
    assert_close(got, expected)

    inputs = (x.probs, values)
    wanted = torch.autograd.grad((expected * weights).sum(), inputs)
    for grad, want in zip(torch.autograd.grad((got * weights).sum(), inputs), wanted, strict=True):
        assert_close(grad, want)


def test_expectation_of_hard_sequences_is_a_look_up(generator):
    tokens = torch.randint(0, V, (2, 3), generator=generator)
    values = torch.randn(6, V, generator=generator, dtype=torch.float64)
    got = SoftTokens.hard(tokens, vocab_size=V).expect(values, torch.arange(6))
    assert got.tolist() == [values[i, word].item() for i, word in enumerate(tokens.flatten())]


def test_tokens_at_soft_positions_mean_nothing(generator):
    x = random_soft(generator)
    other = x.tokens.clone()
    other.view(-1)[POSITIONS] = (other.view(-1)[POSITIONS] + 1) % V
    same = SoftTokens(other, x.positions, x.probs)
    values = torch.randn(BATCH * LENGTH, V, generator=generator, dtype=torch.float64)
    assert same.expect(values, EVERYWHERE).equal(x.expect(values, EVERYWHERE))
    uniform = Noise(range(BATCH)).uniform(LENGTH)
    assert same.draw(uniform).equal(x.draw(uniform))


def test_draw_follows_the_distribution_at_soft_positions_and_keeps_hard_tokens():
    length, half = 20_000, 10_000
    probs = torch.tensor([[0.1, 0.0, 0.6, 0.3], [0.5, 0.25, 0.2, 0.05]], dtype=torch.float64)
    tokens = torch.full((2, length), 1)
    tokens[:, ::2] = 3
    # The first half of each sequence is soft.
    positions = torch.cat([torch.arange(half), torch.arange(length, length + half)])
    x = SoftTokens(tokens, positions, probs.repeat_interleave(half, 0))
    drawn = x.draw(Noise([1, 2]).uniform(length))
    assert drawn[:, half:].equal(tokens[:, half:])
    for row, p in zip(drawn[:, :half], probs, strict=True):
        assert_frequencies(row.bincount(minlength=V), p)
    # Neighbours, and the two sequences, are drawn independently.
    pairs = drawn[0, : half - 1] * V + drawn[0, 1:half]
    assert_frequencies(pairs.bincount(minlength=V * V), torch.outer(probs[0], probs[0]))
    across = drawn[0, :half] * V + drawn[1, :half]
    assert_frequencies(across.bincount(minlength=V * V), torch.outer(probs[0], probs[1]))


@pytest.mark.parametrize("seed", range(10))
def test_a_sequence_is_drawn_the_same_in_any_batch(generator, seed):
    x = random_soft(generator)
    seeds = range(seed, seed + BATCH)
    drawn = x.draw(Noise(seeds).uniform(LENGTH))
    for row in range(BATCH):
        mine = x.positions // LENGTH == row
        alone = SoftTokens(x.tokens[row : row + 1], x.positions[mine] - row * LENGTH, x.probs[mine])
        assert alone.draw(Noise([seeds[row]]).uniform(LENGTH))[0].equal(drawn[row])


def test_draw_leaves_its_source_alone_and_carries_no_graph(generator):
    x = random_soft(generator)
    tokens, probs = x.tokens.clone(), x.probs.detach().clone()
    drawn = x.draw(Noise(range(BATCH)).uniform(LENGTH))
    drawn.fill_(-1)
    assert x.tokens.equal(tokens)
    assert x.probs.equal(probs)
    assert not drawn.requires_grad


def test_hard_sequences_draw_themselves(generator):
    tokens = torch.randint(0, V, (BATCH, LENGTH), generator=generator)
    x = SoftTokens.hard(tokens, vocab_size=V)
    assert x.draw(Noise(range(BATCH)).uniform(LENGTH)).equal(tokens)


@anywhere
def test_picking_is_a_look_up_in_the_dense_simplex(at, generator):
    x = random_soft(generator)
    asked = torch.randint(0, V, (BATCH, LENGTH), generator=generator)
    # Some hard tokens are asked for themselves, so that both answers occur.
    asked[:, 1:3] = x.tokens[:, 1:3]
    expected = dense(x).flatten(0, 1)[at].gather(1, asked.flatten()[at][:, None])[:, 0]
    got = x.pick(asked, at)
    assert_close(got, expected)
    assert_same_gradient(got, expected, x, generator)


def test_picking_from_hard_sequences_asks_whether_the_token_is_the_same():
    x = SoftTokens.hard(torch.tensor([[1, 2], [0, 3]]), vocab_size=V)
    picked = x.pick(torch.tensor([[1, 0], [0, 2]]), torch.arange(4))
    assert picked.tolist() == [1, 0, 1, 0]


@anywhere
def test_negative_entropy_is_that_of_the_dense_simplex(at, generator):
    x = random_soft(generator)
    rows = dense(x).flatten(0, 1)[at]
    expected = (rows * rows.clamp(min=1e-300).log()).sum(-1)
    got = x.neg_entropy(at)
    assert_close(got, expected)
    assert_same_gradient(got, expected, x, generator)
    is_hard = ~torch.isin(at, POSITIONS)
    assert (got[is_hard] == 0).all()


def test_negative_entropy_of_known_distributions():
    rows = [[0.25] * 4, [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    probs = torch.tensor(rows, dtype=torch.float64)
    x = SoftTokens(torch.zeros(1, 4, dtype=torch.long), torch.tensor([0, 1, 2]), probs)
    expected = torch.tensor([-math.log(4), -math.log(2), 0.0, 0.0], dtype=torch.float64)
    assert_close(x.neg_entropy(torch.arange(4)), expected)


@anywhere
def test_a_sum_gets_the_soft_rows_and_the_right_ones_of_what_belongs_to_positions(at, generator):
    x = random_soft(generator)
    scale = torch.rand(len(at), generator=generator, dtype=torch.float64) + 0.5

    def square(probs: Tensor, which: Tensor) -> Tensor:
        return (scale[which, None] * probs) ** 2

    # A one-hot row scaled by c has the sum of squares c squared.
    got = x.summed(at, scale**2, square)
    expected = ((scale[:, None] * dense(x).flatten(0, 1)[at]) ** 2).sum(-1)
    assert_close(got, expected)
    assert_same_gradient(got, expected, x, generator)


def test_a_sum_leaves_what_was_said_about_hard_positions_alone(generator):
    x = random_soft(generator)
    told = torch.arange(BATCH * LENGTH, dtype=torch.float64)
    got = x.summed(EVERYWHERE, told, lambda probs, _: probs).detach()
    told[POSITIONS] = 1.0
    assert_close(got, told)


def test_rows_are_the_dense_simplex(generator):
    x = random_soft(generator)
    expected = dense(x).flatten(0, 1)
    got = x.rows(EVERYWHERE)
    assert_close(got, expected)
    weights = torch.randn(*got.shape, generator=generator, dtype=torch.float64)
    assert_same_gradient((got * weights).sum(-1), (expected * weights).sum(-1), x, generator)


def test_rows_of_hard_and_of_wholly_soft_sequences(generator):
    tokens = torch.randint(0, V, (BATCH, LENGTH), generator=generator)
    one_hot = F.one_hot(tokens.flatten(), V).float()
    assert SoftTokens.hard(tokens, vocab_size=V).rows(EVERYWHERE).equal(one_hot)
    probs = torch.rand(BATCH * LENGTH, V, generator=generator, dtype=torch.float64)
    assert SoftTokens(tokens, EVERYWHERE, probs).rows(EVERYWHERE).equal(probs)
