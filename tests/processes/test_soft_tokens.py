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


@pytest.mark.parametrize(
    "at",
    [EVERYWHERE, EVERYWHERE[:0], POSITIONS, torch.tensor([1, 2, 6]), torch.tensor([11, 2, 3])],
    ids=["everywhere", "nowhere", "soft", "hard", "out of order"],
)
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
    assert same.draw(noise=Noise(range(BATCH))).equal(x.draw(noise=Noise(range(BATCH))))


def test_draw_follows_the_distribution_at_soft_positions_and_keeps_hard_tokens():
    length, half = 20_000, 10_000
    probs = torch.tensor([[0.1, 0.0, 0.6, 0.3], [0.5, 0.25, 0.2, 0.05]], dtype=torch.float64)
    tokens = torch.full((2, length), 1)
    tokens[:, ::2] = 3
    # The first half of each sequence is soft.
    positions = torch.cat([torch.arange(half), torch.arange(length, length + half)])
    x = SoftTokens(tokens, positions, probs.repeat_interleave(half, 0))
    drawn = x.draw(noise=Noise([1, 2]))
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
    drawn = x.draw(noise=Noise(seeds))
    for row in range(BATCH):
        mine = x.positions // LENGTH == row
        alone = SoftTokens(x.tokens[row : row + 1], x.positions[mine] - row * LENGTH, x.probs[mine])
        assert alone.draw(noise=Noise([seeds[row]]))[0].equal(drawn[row])


def test_draw_leaves_its_source_alone_and_carries_no_graph(generator):
    x = random_soft(generator)
    tokens, probs = x.tokens.clone(), x.probs.detach().clone()
    drawn = x.draw(noise=Noise(range(BATCH)))
    drawn.fill_(-1)
    assert x.tokens.equal(tokens)
    assert x.probs.equal(probs)
    assert not drawn.requires_grad


def test_hard_sequences_draw_themselves(generator):
    tokens = torch.randint(0, V, (BATCH, LENGTH), generator=generator)
    x = SoftTokens.hard(tokens, vocab_size=V)
    assert x.draw(noise=Noise(range(BATCH))).equal(tokens)
