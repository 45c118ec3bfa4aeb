import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Noisy
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.processes.udlm import UDLM
from idlm_ds.schedules.cosine import Cosine
from idlm_ds.schedules.loglinear import LogLinear

from ..tolerances import assert_close, assert_frequencies, within_standard_errors

BATCH, LENGTH, V = 4, 6, 5
EVERY = torch.arange(BATCH * LENGTH)
TIMES = torch.tensor([0.91, 0.63, 0.37, 0.11], dtype=torch.float64)
NEAR_THE_ENDS = torch.tensor([1e-4, 1e-3, 0.999, 1.0], dtype=torch.float64)


@pytest.fixture(params=[LogLinear(), Cosine(eps=0.02)], ids=["log-linear", "cosine"])
def process(request) -> UDLM:
    return UDLM(vocab_size=V, schedule=request.param)


def random_words(generator: torch.Generator) -> Tensor:
    return torch.randint(0, V, (BATCH, LENGTH), generator=generator)


def random_scores(generator: torch.Generator) -> Tensor:
    return 2 * torch.randn(BATCH * LENGTH, V, generator=generator, dtype=torch.float64)


def hard(generator: torch.Generator) -> SoftTokens:
    return SoftTokens.hard(random_words(generator), vocab_size=V)


def soft(generator: torch.Generator) -> SoftTokens:
    """Two positions of three are soft."""
    positions = EVERY[EVERY % 3 != 1]
    probs = random_scores(generator)[positions].softmax(-1).requires_grad_()
    return SoftTokens(random_words(generator), positions, probs)


def corrupted(process: UDLM, x_0: SoftTokens, t: Tensor = TIMES, seed: int = 3) -> Noisy:
    return process.corrupt(x_0, t, noise=Noise.of_samples(seed, samples=range(BATCH)))


def simplex(x_0: SoftTokens) -> Tensor:
    one_hot = F.one_hot(x_0.tokens.flatten(), V).double()
    return one_hot.index_copy(0, x_0.positions, x_0.probs.double())


def at_rows(noisy: Noisy) -> tuple[Tensor, Tensor, Tensor]:
    """Alpha, its derivative and the hard state of every position, as columns."""
    at_t = noisy.at_t
    alpha, slope = (u.repeat_interleave(LENGTH)[:, None] for u in (at_t.alpha, at_t.dalpha))
    return alpha, slope, noisy.x_t.flatten()[:, None]


def dense_loss(raw: Tensor, noisy: Noisy) -> Tensor:
    """The sum over words j as written, with bars for N times a noised distribution."""
    alpha, slope, i = at_rows(noisy)
    x_bar = V * alpha * simplex(noisy.x_0) + 1 - alpha
    f_bar = V * alpha * raw.softmax(-1) + 1 - alpha
    x_i, f_i = x_bar.gather(1, i), f_bar.gather(1, i)
    ratios = f_i.log() - f_bar.log() + x_bar.log() - x_i.log()
    inner = V / x_i - V / f_i - (x_bar * ratios).sum(-1, keepdim=True) / x_i
    return (slope / (V * alpha) * inner)[:, 0]


def published_one_hot_loss(raw: Tensor, noisy: Noisy) -> Tensor:
    """The form that is summed by cases: whether the hard state is the clean word or not."""
    alpha, slope, i = at_rows(noisy)
    word = noisy.x_0.tokens.flatten()[:, None]
    e = (word == i).double()
    f_bar = V * alpha * raw.softmax(-1) + 1 - alpha
    x_i, f_i, f_word = 1 - alpha + V * alpha * e, f_bar.gather(1, i), f_bar.gather(1, word)
    c = (1 - alpha) / (V * alpha + 1 - alpha)
    total = f_bar.log().sum(-1, keepdim=True) - V * f_i.log()
    second = -(c * e + 1 - e) * total
    second -= V * alpha / (1 - alpha) * (f_word.log() - f_i.log()) * (1 - e)
    second += ((V - 1) * c * e - (1 - e) / c) * c.log()
    return (slope / (V * alpha) * (V / x_i - V / f_i - second))[:, 0]


@pytest.mark.parametrize("target", [hard, soft])
def test_loss_equals_the_sum_over_words_as_written(process, generator, target):
    noisy, raw = corrupted(process, target(generator)), random_scores(generator)
    assert noisy.positions.equal(EVERY)
    got, expected = process.loss(raw, noisy), dense_loss(raw, noisy)
    assert_close(got.detach(), expected.detach())
    assert (got > 0).all()


def test_loss_of_hard_words_equals_the_published_one_hot_form(process, generator):
    noisy, raw = corrupted(process, hard(generator)), random_scores(generator)
    kept = noisy.x_t == noisy.x_0.tokens
    assert kept.any()
    assert not kept.all()
    assert_close(process.loss(raw, noisy), published_one_hot_loss(raw, noisy))


def test_a_right_answer_costs_nothing_and_leaves_nothing_to_learn(process, generator):
    probs = random_scores(generator).softmax(-1)
    noisy = corrupted(process, SoftTokens(random_words(generator), EVERY, probs))
    raw = (probs.log() + 2.5).requires_grad_()
    loss = process.loss(raw, noisy)
    assert_close(loss.detach(), torch.zeros_like(loss))
    (grad,) = torch.autograd.grad(loss.sum(), raw)
    assert_close(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("vocab_size", [2, V, 40])
def test_expected_loss_of_the_uniform_answer_is_the_rate_at_which_noise_forgets(vocab_size):
    """It is -d/dt KL(q_t(. | x_0) | uniform): the uniform answer is the reversal of pure noise."""
    process = UDLM(vocab_size=vocab_size, schedule=LogLinear())
    t = torch.tensor([0.02, 0.4, 0.97], dtype=torch.float64).requires_grad_()
    at_t = process.schedule.at(t)
    q = torch.full((vocab_size,), 0.0).double() + ((1 - at_t.alpha) / vocab_size)[:, None]
    q = q + at_t.alpha[:, None] * F.one_hot(torch.tensor(0), vocab_size)
    divergence = (q * (q * vocab_size).log()).sum()
    (slope,) = torch.autograd.grad(divergence, t)
    # Every state the word 0 can be in, one a position.
    x_t = torch.arange(vocab_size).expand(3, -1)
    x_0 = SoftTokens.hard(torch.zeros_like(x_t), vocab_size=vocab_size)
    noisy = Noisy(x_0, x_t, x_t, process.schedule.at(t.detach()), torch.arange(x_t.numel()))
    loss = process.loss(torch.zeros(x_t.numel(), vocab_size).double(), noisy)
    assert_close((loss.view(3, -1) * q.detach()).sum(-1), -slope)


@pytest.mark.parametrize("target", [hard, soft])
def test_gap_equals_the_difference_of_two_dense_losses(process, generator, target):
    noisy = corrupted(process, target(generator))
    teacher, fake = random_scores(generator), random_scores(generator)
    expected = dense_loss(teacher, noisy) - dense_loss(fake, noisy)
    got = process.gap(teacher, fake, noisy)
    assert_close(got.detach(), expected.detach())
    assert_close(got.detach(), (process.loss(teacher, noisy) - process.loss(fake, noisy)).detach())


def test_gradient_of_the_gap_equals_autograd_through_the_difference_of_losses(process, generator):
    noisy = corrupted(process, soft(generator))
    teacher, fake = (random_scores(generator).requires_grad_() for _ in range(2))
    inputs = (noisy.x_0.probs, teacher, fake)
    got = torch.autograd.grad(process.gap(teacher, fake, noisy).sum(), inputs)
    for loss in (process.loss, dense_loss):
        difference = loss(teacher, noisy) - loss(fake, noisy)
        wanted = torch.autograd.grad(difference.sum(), inputs)
        for grad, want in zip(got[1:], wanted[1:], strict=True):
            assert grad.abs().max() > 0.1
            assert_close(grad, want)
        # A distribution sums to one, so only differences between words have a meaning.
        grad, want = (g[0] - g[0].mean(-1, keepdim=True) for g in (got, wanted))
        assert grad.abs().max() > 0.1
        assert_close(grad, want)


def test_direct_gradient_of_the_gap_has_its_closed_form(process, generator):
    """It is alpha' (l_k / x_bar_i + [k = i] (N l_i - sum_j x_bar_j l_j) / x_bar_i^2).

    Here x_bar is N q, and l the log of the noised teacher over the noised fake.
    """
    probs = random_scores(generator).softmax(-1).requires_grad_()
    noisy = corrupted(process, SoftTokens(random_words(generator), EVERY, probs))
    teacher, fake = random_scores(generator), random_scores(generator)
    (got,) = torch.autograd.grad(process.gap(teacher, fake, noisy).sum(), probs)
    alpha, slope, i = at_rows(noisy)
    noised = [V * alpha * f.softmax(-1) + 1 - alpha for f in (teacher, fake)]
    ell = noised[0].log() - noised[1].log()
    x_bar = V * alpha * probs.detach() + 1 - alpha
    x_i, ell_i = x_bar.gather(1, i), ell.gather(1, i)
    at_state = (V * ell_i - (x_bar * ell).sum(-1, keepdim=True)) / x_i**2
    is_state = F.one_hot(i[:, 0], V)
    assert_close(got, slope * (ell / x_i + is_state * at_state))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("target", [hard, soft])
def test_gap_is_exactly_zero_when_the_fake_is_the_teacher(process, generator, target, dtype):
    noisy, raw = corrupted(process, target(generator)), random_scores(generator).to(dtype)
    assert (process.gap(raw, raw.clone(), noisy) == 0).all()


@pytest.mark.parametrize("target", [hard, soft])
@pytest.mark.parametrize("t", [TIMES, NEAR_THE_ENDS], ids=["inside", "near the ends"])
def test_float32_scores_give_what_logarithms_in_float32_allow_at_any_time(generator, target, t):
    """Logarithms of size 10 are off by 1e-6, and are weighed by 1 / alpha or 1 / (1 - alpha)."""
    process = UDLM(vocab_size=V, schedule=LogLinear())
    noisy = corrupted(process, target(generator), t)
    # States as rare as they come near t=0 are the hard ones.
    noisy.x_t[:2, ::2] = (noisy.x_t[:2, ::2] + 1) % V
    teacher, fake = (random_scores(generator).float() for _ in range(2))
    at_t = noisy.at_t
    bound = (2e-6 / at_t.alpha + 2e-6 / at_t.masked).repeat_interleave(LENGTH)
    for got, exact in (
        (process.loss(teacher, noisy), process.loss(teacher.double(), noisy)),
        (process.gap(teacher, fake, noisy), process.gap(teacher.double(), fake.double(), noisy)),
    ):
        assert ((got - exact).abs() < bound).all()


def test_scores_in_16_bits_are_normalised_in_float32(process, generator):
    noisy, raw = corrupted(process, hard(generator)), random_scores(generator).bfloat16()
    assert process.loss(raw, noisy).equal(process.loss(raw.float(), noisy))


def test_predicting_twice_changes_nothing_and_relax_is_soft_everywhere(process, generator):
    noisy, raw = corrupted(process, hard(generator)), random_scores(generator)
    words = process.predict(raw)
    assert_close(words.exp(), raw.softmax(-1))
    assert_close(process.predict(words), words)
    relaxed = process.relax(raw, noisy)
    assert_close(relaxed.rows(EVERY), raw.softmax(-1))
    assert relaxed.positions.equal(EVERY)


def test_corrupted_tokens_have_the_marginal_of_the_forward_process(process):
    length, half = 40_000, 20_000
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    probs = torch.tensor([0.1, 0.5, 0.3, 0.0, 0.1], dtype=torch.float64)
    positions = torch.cat([torch.arange(half), torch.arange(length, length + half)])
    x_0 = SoftTokens(torch.full((2, length), 4), positions, probs.expand(2 * half, -1))
    noisy = process.corrupt(x_0, t, noise=Noise([1, 2]))
    word = F.one_hot(torch.tensor(4), V).double()
    for row, alpha in zip(noisy.x_t, process.schedule.at(t).alpha, strict=True):
        soft_part, hard_part = row.split(half)
        assert_frequencies(soft_part.bincount(minlength=V), alpha * probs + (1 - alpha) / V)
        assert_frequencies(hard_part.bincount(minlength=V), alpha * word + (1 - alpha) / V)
        # Neighbours are noised independently.
        is_kept = hard_part == 4
        kept = (alpha + (1 - alpha) / V).item()
        spread = (1 - kept) * (1 + 3 * kept)
        both = (is_kept[1:] & is_kept[:-1]).double().mean().item()
        assert within_standard_errors(both, kept**2, kept * math.sqrt(spread / half))


def test_a_sequence_is_corrupted_the_same_in_any_batch(process, generator):
    words = random_words(generator)
    together = corrupted(process, SoftTokens.hard(words, vocab_size=V))
    for row in range(BATCH):
        alone = process.corrupt(
            SoftTokens.hard(words[row : row + 1], vocab_size=V),
            TIMES[row : row + 1],
            noise=Noise.of_samples(3, samples=[row]),
        )
        assert alone.x_t[0].equal(together.x_t[row])


def test_networks_are_shown_the_hard_state_which_carries_no_graph(process, generator):
    x_0 = soft(generator)
    noisy = corrupted(process, x_0)
    assert noisy.x_0 is x_0
    assert noisy.x_in.equal(noisy.x_t)
    assert not noisy.x_t.requires_grad
    assert_close(noisy.at_t.alpha, process.schedule.at(TIMES).alpha)


def test_a_replaced_word_near_time_zero_costs_the_rates_of_two_chains():
    """With lost = 1 - alpha small, the true rate back to the word is V / lost times the network's.

    The network's own is f_0 / f_i: the cost is the log of their ratio less one, over lost.
    """
    lost = 1e-6
    process = UDLM(vocab_size=V, schedule=LogLinear(eps=0.0))
    x_t, x_0 = torch.tensor([[1]]), SoftTokens.hard(torch.tensor([[0]]), vocab_size=V)
    at_t = process.schedule.at(torch.tensor([lost], dtype=torch.float64))
    f = torch.tensor([[0.2, 0.5, 0.1, 0.1, 0.1]], dtype=torch.float64)
    loss = process.loss(f.log(), Noisy(x_0, x_t, x_t, at_t, torch.tensor([0]))).item()
    assert loss * lost == pytest.approx(math.log(V / lost * 0.5 / 0.2) - 1, rel=1e-4)
