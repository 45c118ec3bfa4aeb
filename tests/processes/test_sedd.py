import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Noisy
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.schedules.base import NoiseSchedule, ScheduleAt
from idlm_ds.schedules.geometric import Geometric
from idlm_ds.schedules.loglinear import LogLinear

from ..heads import answering
from ..tolerances import assert_close, assert_frequencies

BATCH, LENGTH, V, MASK = 4, 6, 5, 3
WORDS = torch.arange(V) != MASK
TIMES = torch.tensor([0.91, 0.63, 0.37, 0.11], dtype=torch.float64)
NEAR_THE_ENDS = torch.tensor([1e-5, 1e-3, 0.999, 1.0], dtype=torch.float64)


@pytest.fixture(params=[LogLinear(), Geometric(0.05, 5.0)], ids=["log-linear", "geometric"])
def schedule(request) -> NoiseSchedule:
    return request.param


@pytest.fixture
def process(schedule) -> SEDD:
    return SEDD(vocab_size=V, schedule=schedule, mask_id=MASK)


def random_words(generator: torch.Generator) -> Tensor:
    words = torch.randint(0, V - 1, (BATCH, LENGTH), generator=generator)
    return words + (words >= MASK)


def random_scores(generator: torch.Generator) -> Tensor:
    return 2 * torch.randn(BATCH * LENGTH, V, generator=generator, dtype=torch.float64)


def hard(generator: torch.Generator) -> SoftTokens:
    return SoftTokens.hard(random_words(generator), vocab_size=V)


def soft(generator: torch.Generator) -> SoftTokens:
    """Two positions of three are soft, with no weight on the mask."""
    positions = torch.arange(BATCH * LENGTH)
    positions = positions[positions % 3 != 1]
    probs = torch.rand(len(positions), V, generator=generator, dtype=torch.float64) * WORDS
    probs = (probs / probs.sum(-1, keepdim=True)).requires_grad_()
    return SoftTokens(random_words(generator), positions, probs)


def corrupted(process: SEDD | MDLM, x_0: SoftTokens, t: Tensor = TIMES, seed: int = 0) -> Noisy:
    return process.corrupt(x_0, t, noise=Noise.of_samples(seed, samples=range(BATCH)))


def all_masked(process: SEDD, x_0: SoftTokens, t: Tensor) -> Noisy:
    x_t = torch.full((BATCH, LENGTH), MASK)
    return Noisy(x_0, x_t, x_t, process.schedule.at(t), torch.arange(BATCH * LENGTH))


def per_position(time: Tensor, noisy: Noisy) -> Tensor:
    return time[noisy.positions // LENGTH]


def rate(noisy: Noisy) -> Tensor:
    """The weight lambda of masked families, at each position of the loss."""
    return per_position(-noisy.at_t.dalpha / (1 - noisy.at_t.alpha), noisy)


def log_score(raw: Tensor, at_t: ScheduleAt, row: Tensor) -> Tensor:
    """Published parameterisation: raw minus log expm1 sigma minus log (V - 1)."""
    return raw - torch.expm1(-at_t.alpha.log())[row].log()[:, None] - math.log(V - 1)


def along_the_simplex(grad: Tensor) -> Tensor:
    return grad[:, WORDS] - grad[:, WORDS].mean(-1, keepdim=True)


def dense_loss(raw: Tensor, noisy: Noisy) -> Tensor:
    """Score entropy over all words y, with K(a) = a log a - a; rows beside noisy.positions."""
    at_t, row = noisy.at_t, noisy.positions // LENGTH
    log_s = log_score(raw, at_t, row)[:, WORDS]
    target = F.one_hot(noisy.x_0.tokens.flatten(), V).double()
    target = target.index_copy(0, noisy.x_0.positions, noisy.x_0.probs.double())
    ratio = (at_t.alpha / (1 - at_t.alpha))[row]
    a = ratio[:, None] * target[noisy.positions][:, WORDS]
    constant = a * a.clamp(min=1e-300).log() - a
    inner = log_s.exp() - a * log_s + constant
    return (-at_t.dalpha / at_t.alpha)[row] * inner.sum(-1)


def test_loss_of_the_uniform_answer_is_log_vocab_at_every_masked_token(process, generator):
    noisy = corrupted(process, hard(generator))
    loss = process.loss(torch.zeros(len(noisy.positions), V).double(), noisy)
    assert len(loss) > 0
    assert_close(loss, rate(noisy) * math.log(V - 1))


@pytest.mark.parametrize("target", [hard, soft])
def test_loss_equals_the_score_entropy_as_written(process, generator, target):
    noisy = corrupted(process, target(generator))
    raw = random_scores(generator)[noisy.positions]
    assert 0 < len(raw) < BATCH * LENGTH
    assert noisy.positions.equal((noisy.x_t == MASK).flatten().nonzero()[:, 0])
    assert_close(process.loss(raw, noisy).detach(), dense_loss(raw, noisy).detach())


def test_loss_of_hard_words_equals_the_published_one_hot_form(process, generator):
    noisy = corrupted(process, hard(generator))
    raw = random_scores(generator)[noisy.positions]
    log_s = log_score(raw, noisy.at_t, noisy.positions // LENGTH)
    word = noisy.x_0.tokens.flatten()[noisy.positions]
    ratio = per_position(noisy.at_t.alpha / (1 - noisy.at_t.alpha), noisy)
    positive = log_s[:, WORDS].exp().sum(-1)
    negative = ratio * log_s.gather(1, word[:, None])[:, 0]
    constant = ratio * (ratio.log() - 1)
    expected = per_position(-noisy.at_t.dalpha / noisy.at_t.alpha, noisy)
    assert_close(process.loss(raw, noisy), expected * (positive - negative + constant))


def test_loss_and_its_gradient_vanish_at_the_true_ratios(process, generator):
    """The true log ratio over r / (V - 1) is log p + log (V - 1)."""
    noisy = corrupted(process, soft(generator))
    probs = noisy.x_0.rows(noisy.positions).detach()
    is_soft = torch.isin(noisy.positions, noisy.x_0.positions)
    raw = (probs.clamp(min=1e-30).log() + math.log(V - 1)).requires_grad_()
    loss = process.loss(raw, noisy)[is_soft]
    assert len(loss) > 0
    assert_close(loss.detach(), torch.zeros_like(loss))
    (grad,) = torch.autograd.grad(loss.sum(), raw)
    assert_close(grad, torch.zeros_like(grad))
    assert (process.loss(raw + 0.1, noisy)[is_soft] > 1e-3).all()


def test_loss_is_that_of_mdlm_and_a_penalty_on_ratios_that_do_not_sum_to_r(
    process, schedule, generator
):
    noisy = corrupted(process, hard(generator))
    raw = random_scores(generator)[noisy.positions]
    log_f = raw.masked_fill(~WORDS, -math.inf).log_softmax(-1)
    masked = MDLM(vocab_size=V, schedule=schedule, mask_id=MASK)
    expected = masked.loss(raw, noisy)
    for excess in (0.0, 0.7, -1.3):
        got = process.loss(log_f + math.log(V - 1) + excess, noisy)
        assert_close(got, expected + rate(noisy) * (math.exp(excess) - 1 - excess))


@pytest.mark.parametrize("target", [hard, soft])
def test_gap_equals_the_difference_of_two_dense_losses(process, generator, target):
    noisy = corrupted(process, target(generator))
    teacher, fake = (random_scores(generator)[noisy.positions] for _ in range(2))
    expected = dense_loss(teacher, noisy) - dense_loss(fake, noisy)
    assert_close(process.gap(teacher, fake, noisy).detach(), expected.detach())


def test_gradient_of_the_gap_equals_autograd_through_the_difference_of_losses(process, generator):
    noisy = corrupted(process, soft(generator))
    teacher, fake = (random_scores(generator)[noisy.positions].requires_grad_() for _ in range(2))
    inputs = (noisy.x_0.probs, teacher, fake)
    got = torch.autograd.grad(process.gap(teacher, fake, noisy).sum(), inputs)
    for loss in (process.loss, dense_loss):
        difference = loss(teacher, noisy) - loss(fake, noisy)
        wanted = torch.autograd.grad(difference.sum(), inputs)
        for grad, want in zip(got[1:], wanted[1:], strict=True):
            assert_close(grad[:, WORDS], want[:, WORDS])
            assert grad[:, WORDS].abs().max() > 0.1
        # A distribution sums to one, so only differences between words have a meaning.
        grad, want = (along_the_simplex(g[0]) for g in (got, wanted))
        assert_close(grad, want)
        assert grad.abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("target", [hard, soft])
def test_gap_is_exactly_zero_when_the_fake_is_the_teacher(process, generator, target, dtype):
    noisy = corrupted(process, target(generator))
    raw = random_scores(generator)[noisy.positions].to(dtype)
    assert (process.gap(raw, raw.clone(), noisy) == 0).all()


def test_student_gradient_is_the_centred_advantage_where_both_draws_are_masked(process, generator):
    """It is -lambda G_k (a_k - <G, a>), a being the difference of raw scores; sums do not enter."""
    given = corrupted(process, hard(generator), torch.full((BATCH,), 0.8).double(), seed=1)
    student = random_scores(generator)[given.positions].requires_grad_()
    noisy = corrupted(process, process.relax(student, given), seed=2)
    teacher, fake = (random_scores(generator)[noisy.positions] for _ in range(2))
    gap = process.gap(teacher, fake, noisy)
    (got,) = torch.autograd.grad(gap.sum(), student)
    expected = torch.zeros_like(student)
    both = [p for p in noisy.positions.tolist() if p in given.positions.tolist()]
    assert 0 < len(both) < min(len(given.positions), len(noisy.positions))
    for position in both:
        mine, row = (int((x.positions == position).nonzero()) for x in (given, noisy))
        g = student[mine, WORDS].detach().softmax(-1)
        a = (teacher - fake)[row, WORDS]
        expected[mine, WORDS] = -rate(noisy)[row] * g * (a - (g * a).sum())
    assert_close(got, expected)


@pytest.mark.parametrize("target", [hard, soft])
def test_float32_scores_give_float32_accuracy_at_any_time(generator, target):
    process = SEDD(vocab_size=V, schedule=LogLinear(), mask_id=MASK)
    noisy = all_masked(process, target(generator), NEAR_THE_ENDS)
    teacher, fake = (random_scores(generator).float() for _ in range(2))
    for got, exact in (
        (process.loss(teacher, noisy), process.loss(teacher.double(), noisy)),
        (process.gap(teacher, fake, noisy), process.gap(teacher.double(), fake.double(), noisy)),
    ):
        assert got.dtype == torch.float32
        # In units of the weight, which is 1e5 at the earliest time.
        assert_close((got / rate(noisy)).detach().float(), (exact / rate(noisy)).detach().float())


def test_scores_in_16_bits_are_read_in_float32(process, generator):
    noisy = corrupted(process, hard(generator))
    raw = random_scores(generator)[noisy.positions].bfloat16()
    assert process.loss(raw, noisy).equal(process.loss(raw.float(), noisy))


def test_the_score_of_the_mask_means_nothing(process, generator):
    noisy = corrupted(process, soft(generator))
    teacher, fake = (random_scores(generator)[noisy.positions] for _ in range(2))
    shifted = teacher.clone()
    shifted[:, MASK] += 1e4
    assert process.loss(shifted, noisy).equal(process.loss(teacher, noisy))
    assert process.gap(shifted, fake, noisy).equal(process.gap(teacher, fake, noisy))
    assert (process.relax(shifted, noisy).probs[:, MASK] == 0).all()


def test_log_ratios_are_published_scores_and_those_of_mdlm_sum_to_r(process, schedule, generator):
    noisy = corrupted(process, hard(generator))
    raw = random_scores(generator)[noisy.positions]
    ratio = per_position(noisy.at_t.alpha / (1 - noisy.at_t.alpha), noisy)
    expected = log_score(raw, noisy.at_t, noisy.positions // LENGTH)
    assert_close(process.log_ratio(raw, ratio.log())[:, WORDS], expected[:, WORDS])
    masked = MDLM(vocab_size=V, schedule=schedule, mask_id=MASK)
    words = masked.log_ratio(raw, ratio.log())[:, WORDS].exp()
    assert_close(words, ratio[:, None] * raw[:, WORDS].softmax(-1))


def test_reverse_is_the_posterior_by_bayes_rule_whatever_the_ratios_sum_to(process, generator):
    t, s = (torch.tensor([u], dtype=torch.float64) for u in (0.8, 0.3))
    alpha_t, alpha_s = (process.schedule.at(u).alpha.item() for u in (t, s))
    answer = torch.tensor([0.1, 0.4, 0.2, 0.0, 0.3], dtype=torch.float64)
    joint = torch.zeros(V, dtype=torch.float64)
    for x_0 in range(V):
        for x_s in range(V):
            q_s = alpha_s * (x_s == x_0) + (1 - alpha_s) * (x_s == MASK)
            becomes_mask = 1 if x_s == MASK else 1 - alpha_t / alpha_s
            joint[x_s] += answer[x_0] * q_s * becomes_mask
    raw = answer.clamp(min=1e-30).log()[None] + 3.7
    got = process.reverse(raw, torch.tensor([[MASK]]), t, s, torch.tensor([0]))
    assert_close(got[0], joint / joint.sum())


@pytest.mark.parametrize("s", [0.0, 0.4])
def test_step_draws_from_reverse(process, generator, s):
    x_t = torch.full((2, 60_000), MASK)
    times = [torch.full((2,), u, dtype=torch.float64) for u in (0.9, s)]
    raw = torch.randn(V, generator=generator)
    ask = answering(lambda p: raw.expand(len(p), -1))
    x_s = process.step(x_t, *times, ask, noise=Noise([1, 2]))
    row = process.reverse(raw[None], x_t, *times, torch.tensor([1]))[0]
    assert (row[MASK] > 0) == (s > 0)
    assert_frequencies(x_s.flatten().bincount(minlength=V), row)
