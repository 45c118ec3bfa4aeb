import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Noisy
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.schedules.loglinear import LogLinear

from ..tolerances import assert_close, within_standard_errors

BATCH, LENGTH, V, MASK, EPS = 4, 6, 5, 3, 1e-3
POWERS_OF_TWO = torch.tensor([1.0, 0.5, 0.25, 0.0625], dtype=torch.float64)
PLAIN_TIMES = torch.tensor([0.91, 0.63, 0.37, 0.11], dtype=torch.float64)


@pytest.fixture
def process() -> MDLM:
    return MDLM(vocab_size=V, schedule=LogLinear(eps=EPS), mask_id=MASK)


def random_words(batch: int, length: int, generator: torch.Generator) -> Tensor:
    """Any words but the mask."""
    words = torch.randint(0, V - 1, (batch, length), generator=generator)
    return words + (words >= MASK)


def random_scores(generator: torch.Generator) -> Tensor:
    return 2 * torch.randn(BATCH, LENGTH, V, generator=generator, dtype=torch.float64)


def hard(generator: torch.Generator) -> SoftTokens:
    return SoftTokens.hard(random_words(BATCH, LENGTH, generator), vocab_size=V)


def soft(generator: torch.Generator) -> SoftTokens:
    """Two positions of three are soft, with no weight on the mask."""
    positions = torch.arange(BATCH * LENGTH)
    positions = positions[positions % 3 != 1]
    probs = torch.rand(len(positions), V, generator=generator, dtype=torch.float64)
    probs[:, MASK] = 0
    probs = (probs / probs.sum(-1, keepdim=True)).requires_grad_()
    return SoftTokens(random_words(BATCH, LENGTH, generator), positions, probs)


def dense_simplex(x: SoftTokens) -> Tensor:
    rows = F.one_hot(x.tokens.flatten(), V).double()
    rows = rows.index_copy(0, x.positions, x.probs.double())
    return rows.view(*x.tokens.shape, V)


def dense_loss(scores: Tensor, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The integrand of the ELBO as written on paper, at all positions and in float64."""
    forbidden = torch.zeros(V, dtype=torch.float64)
    forbidden[MASK] = -1e6
    z = scores + forbidden
    log_f = z - z.logsumexp(-1, keepdim=True)
    is_masked = (x_t == MASK).double()
    # alpha' / (1 - alpha), from alpha = 1 - (1 - eps) t.
    weight = -(1 - EPS) / ((1 - EPS) * t)
    return weight[:, None] * is_masked * (x_0 * log_f).sum(-1)


def at_positions(dense: Tensor, noisy: Noisy) -> Tensor:
    return dense.flatten(0, 1)[noisy.positions]


def corrupted(process: MDLM, x_0: SoftTokens, t: Tensor, seed: int = 0) -> Noisy:
    return process.corrupt(x_0, t, noise=Noise.of_samples(seed, samples=range(len(x_0.tokens))))


def midpoints(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


@pytest.mark.parametrize("vocab_size", [3, V, 50])
def test_loss_of_the_uniform_answer_is_log_vocab_at_every_masked_token(vocab_size):
    process = MDLM(vocab_size=vocab_size, schedule=LogLinear(eps=EPS), mask_id=vocab_size - 1)
    tokens = torch.zeros(4, 8, dtype=torch.long)
    noisy = corrupted(process, SoftTokens.hard(tokens, vocab_size=vocab_size), POWERS_OF_TWO)
    loss = process.loss(torch.zeros(len(noisy.positions), vocab_size).double(), noisy)
    expected = math.log(vocab_size - 1) / POWERS_OF_TWO[noisy.positions // 8]
    assert_close(loss, expected)


def test_loss_of_the_uniform_answer_is_log_vocab_in_expectation_over_time(process, generator):
    batch, length = 4096, 64
    words = random_words(batch, length, generator)
    noisy = corrupted(process, SoftTokens.hard(words, vocab_size=V), midpoints(batch))
    loss = process.loss(torch.zeros(len(noisy.positions), V), noisy)
    # The variance of 1[masked] / t is (1 - t) / t.
    variance = ((1 - midpoints(batch)) / midpoints(batch)).mean().item()
    se = math.log(V - 1) * math.sqrt(variance / (batch * length))
    got = loss.double().sum().item() / (batch * length)
    assert se < 0.01 * math.log(V - 1)
    assert within_standard_errors(got, (1 - EPS) * math.log(V - 1), se)


def test_a_sure_and_right_answer_costs_nothing(process, generator):
    x_0 = hard(generator)
    noisy = corrupted(process, x_0, PLAIN_TIMES)
    scores = 1e4 * F.one_hot(x_0.tokens, V).double()
    assert_close(
        process.loss(at_positions(scores, noisy), noisy),
        torch.zeros(len(noisy.positions), dtype=torch.float64),
    )


@pytest.mark.parametrize("target", [hard, soft])
def test_loss_equals_the_dense_formula(process, generator, target):
    x_0, scores = target(generator), random_scores(generator)
    noisy = corrupted(process, x_0, POWERS_OF_TWO)
    expected = dense_loss(scores, dense_simplex(x_0), noisy.x_t, POWERS_OF_TWO)
    got = process.loss(at_positions(scores, noisy), noisy)
    assert 0 < len(got) < BATCH * LENGTH
    assert_close(got.detach(), at_positions(expected, noisy).detach())
    # Nothing is left out: the formula is zero everywhere else.
    assert_close(got.sum().detach(), expected.sum().detach())


@pytest.mark.parametrize("target", [hard, soft])
def test_gap_equals_the_difference_of_two_dense_losses(process, generator, target):
    x_0, teacher, fake = target(generator), random_scores(generator), random_scores(generator)
    noisy = corrupted(process, x_0, POWERS_OF_TWO)
    simplex = dense_simplex(x_0)
    expected = dense_loss(teacher, simplex, noisy.x_t, POWERS_OF_TWO) - dense_loss(
        fake, simplex, noisy.x_t, POWERS_OF_TWO
    )
    got = process.gap(at_positions(teacher, noisy), at_positions(fake, noisy), noisy)
    assert_close(got.detach(), at_positions(expected, noisy).detach())
    assert_close(got.sum().detach(), expected.sum().detach())


@pytest.mark.parametrize("target", [hard, soft])
def test_float64_scores_give_float64_accuracy_at_any_time(process, generator, target):
    x_0, teacher, fake = target(generator), random_scores(generator), random_scores(generator)
    noisy = corrupted(process, x_0, PLAIN_TIMES)
    simplex = dense_simplex(x_0).detach()
    losses = [dense_loss(z, simplex, noisy.x_t, PLAIN_TIMES) for z in (teacher, fake)]
    raw = [at_positions(z, noisy) for z in (teacher, fake)]
    assert_close(process.loss(raw[0], noisy).detach(), at_positions(losses[0], noisy))
    assert_close(process.gap(*raw, noisy).detach(), at_positions(losses[0] - losses[1], noisy))


@pytest.mark.parametrize("target", [hard, soft])
def test_float32_scores_give_float32_accuracy_at_any_time(process, generator, target):
    x_0, scores = target(generator), random_scores(generator)
    noisy = corrupted(process, x_0, PLAIN_TIMES)
    expected = dense_loss(scores, dense_simplex(x_0), noisy.x_t, PLAIN_TIMES)
    got = process.loss(at_positions(scores, noisy).float(), noisy)
    assert_close(got.detach().float(), at_positions(expected, noisy).detach().float())


def test_scores_in_16_bits_are_normalised_in_float32(process, generator):
    noisy = corrupted(process, hard(generator), PLAIN_TIMES)
    raw = at_positions(random_scores(generator), noisy).bfloat16()
    assert process.loss(raw, noisy).equal(process.loss(raw.float(), noisy))


def test_gradient_of_the_gap_equals_autograd_through_the_difference_of_losses(process, generator):
    x_0 = soft(generator)
    noisy = corrupted(process, x_0, PLAIN_TIMES)
    teacher, fake = (
        at_positions(random_scores(generator), noisy).requires_grad_() for _ in range(2)
    )
    inputs = (x_0.probs, teacher, fake)
    gap = process.gap(teacher, fake, noisy)
    difference = process.loss(teacher, noisy) - process.loss(fake, noisy)
    assert_close(gap.detach(), difference.detach())
    wanted = torch.autograd.grad(difference.sum(), inputs)
    got = torch.autograd.grad(gap.sum(), inputs)
    words = torch.arange(V) != MASK
    for grad, want in zip(got, wanted, strict=True):
        # The mask's own score has no meaning; its gradient is checked through ``relax`` below.
        assert_close(grad[:, words], want[:, words])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("target", [hard, soft])
def test_gap_is_exactly_zero_when_the_fake_is_the_teacher(process, generator, target, dtype):
    noisy = corrupted(process, target(generator), PLAIN_TIMES)
    raw = at_positions(random_scores(generator), noisy).to(dtype)
    assert (process.gap(raw, raw.clone(), noisy) == 0).all()


def test_student_gradient_is_the_centred_advantage_where_both_draws_are_masked(process, generator):
    """The gradient of the gap is -1/t G_k (a_k - <G, a>), with a = log teacher - log fake."""
    tokens = random_words(BATCH, LENGTH, generator)
    given = corrupted(process, SoftTokens.hard(tokens, vocab_size=V), torch.full((BATCH,), 0.75), 1)
    student = torch.randn(len(given.positions), V, generator=generator, dtype=torch.float64)
    student.requires_grad_()
    x_0 = process.relax(student, given)
    noisy = corrupted(process, x_0, POWERS_OF_TWO, 2)
    teacher, fake = random_scores(generator), random_scores(generator)
    gap = process.gap(at_positions(teacher, noisy), at_positions(fake, noisy), noisy)
    (got,) = torch.autograd.grad(gap.sum(), student)

    words = torch.arange(V) != MASK
    is_useful = torch.isin(given.positions, noisy.positions)
    assert is_useful.any()
    assert not is_useful.all()
    assert not torch.isin(noisy.positions, given.positions).all()
    expected = torch.zeros_like(student)
    for row, position in enumerate(given.positions.tolist()):
        if not is_useful[row]:
            continue
        g = student[row, words].detach().softmax(-1)
        a, b = (z.flatten(0, 1)[position, words].log_softmax(-1) for z in (teacher, fake))
        lam = 1 / POWERS_OF_TWO[position // LENGTH]
        expected[row, words] = -lam * g * ((a - b) - (g * (a - b)).sum())
    assert_close(got, expected)
    assert (got[~is_useful] == 0).all()
    assert (got[:, MASK] == 0).all()
