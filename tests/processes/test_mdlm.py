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

from ..tolerances import assert_close, assert_frequencies, within_standard_errors

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


def test_mask_is_never_an_answer(process, generator):
    noisy = corrupted(process, hard(generator), PLAIN_TIMES)
    raw = at_positions(random_scores(generator), noisy).float()
    raw[:, MASK] = 1e4
    relaxed = process.relax(raw, noisy)
    assert (relaxed.probs[:, MASK] == 0).all()
    words = torch.arange(V) != MASK
    assert_close(relaxed.probs[:, words], raw[:, words].softmax(-1))


def test_relax_copies_visible_tokens_and_is_soft_at_masked_ones(process, generator):
    x_0 = hard(generator)
    noisy = corrupted(process, x_0, PLAIN_TIMES)
    relaxed = process.relax(at_positions(random_scores(generator), noisy), noisy)
    assert relaxed.positions.equal((noisy.x_t == MASK).flatten().nonzero()[:, 0])
    visible = noisy.x_t != MASK
    assert relaxed.tokens[visible].equal(x_0.tokens[visible])


@pytest.mark.parametrize("eps", [0.0, EPS, 0.3])
def test_reverse_is_the_posterior_by_bayes_rule(eps):
    schedule = LogLinear(eps=eps)
    process = MDLM(vocab_size=V, schedule=schedule, mask_id=MASK)
    t, s = torch.tensor([0.8], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    answer = torch.tensor([0.1, 0.4, 0.2, 0.0, 0.3], dtype=torch.float64)
    alpha_t, alpha_s = (1 - (1 - eps) * u.item() for u in (t, s))
    joint = torch.zeros(V, dtype=torch.float64)
    for x_0 in range(V):
        for x_s in range(V):
            q_s = alpha_s * (x_s == x_0) + (1 - alpha_s) * (x_s == MASK)
            becomes_mask = 1 if x_s == MASK else 1 - alpha_t / alpha_s
            joint[x_s] += answer[x_0] * q_s * becomes_mask
    got = process.reverse(
        answer.log().clamp(min=-50)[None], torch.tensor([[MASK]]), t, s, torch.tensor([0])
    )
    assert_close(got[0], joint / joint.sum())


def test_reverse_rows_sum_to_one_and_visible_tokens_stay(process, generator):
    x_t = torch.randint(0, V, (BATCH, LENGTH), generator=generator)
    scores = random_scores(generator).flatten(0, 1)
    every = torch.arange(BATCH * LENGTH)
    rows = process.reverse(scores, x_t, PLAIN_TIMES, PLAIN_TIMES / 3, every)
    assert_close(rows.sum(-1), torch.ones(BATCH * LENGTH, dtype=torch.float64))
    assert (rows >= 0).all()
    visible = x_t.flatten() != MASK
    assert rows[visible].equal(F.one_hot(x_t.flatten()[visible], V).double())
    # A masked row stays masked with probability (1 - alpha_s) / (1 - alpha_t) = s / t.
    assert_close(rows[~visible, MASK], torch.full_like(rows[~visible, MASK], 1 / 3))
    some = torch.tensor([2, 7, 20])
    picked = process.reverse(scores[some], x_t, PLAIN_TIMES, PLAIN_TIMES / 3, some)
    assert picked.equal(rows[some])


def test_step_draws_from_reverse_and_asks_once_at_masked_positions(process, generator):
    length = 20_000
    x_t = torch.full((2, length), MASK)
    x_t[:, ::4] = 1
    t, s = (torch.full((2,), u, dtype=torch.float64) for u in (0.9, 0.4))
    raw = torch.randn(V, generator=generator)
    asked = []

    def ask(positions: Tensor) -> Tensor:
        asked.append(positions)
        return raw.expand(len(positions), -1)

    before = x_t.clone()
    x_s = process.step(x_t, t, s, ask, noise=Noise([1, 2]))
    assert x_t.equal(before)
    (positions,) = asked
    assert positions.equal(((x_t == MASK) & (x_s != MASK)).flatten().nonzero()[:, 0])
    assert (x_s[:, ::4] == 1).all()
    row = process.reverse(raw[None], x_t, t, s, torch.tensor([1]))[0]
    assert_frequencies(x_s[x_t == MASK].bincount(minlength=V), row)


def test_the_last_step_leaves_no_mask(process):
    x_t = torch.full((2, 500), MASK)
    t, s = torch.full((2,), 1e-5).double(), torch.zeros(2).double()
    x_0 = process.step(x_t, t, s, lambda p: torch.zeros(len(p), V), noise=Noise([1, 2]))
    assert (x_0 != MASK).all()


def test_corrupted_tokens_have_the_marginal_of_the_forward_process(process):
    length, half = 20_000, 10_000
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    probs = torch.tensor([0.1, 0.5, 0.3, 0.0, 0.1], dtype=torch.float64)
    tokens = torch.full((2, length), 4)
    positions = torch.cat([torch.arange(half), torch.arange(length, length + half)])
    noisy = corrupted(process, SoftTokens(tokens, positions, probs.expand(2 * half, -1)), t)
    mask = F.one_hot(torch.tensor(MASK), V).double()
    word = F.one_hot(torch.tensor(4), V).double()
    for row, alpha in zip(noisy.x_t, 1 - (1 - EPS) * t, strict=True):
        soft_counts, hard_counts = (part.bincount(minlength=V) for part in row.split(half))
        assert_frequencies(soft_counts, alpha * probs + (1 - alpha) * mask)
        assert_frequencies(hard_counts, alpha * word + (1 - alpha) * mask)


def test_a_sequence_is_corrupted_the_same_in_any_batch(process, generator):
    words = random_words(BATCH, LENGTH, generator)
    together = corrupted(process, SoftTokens.hard(words, vocab_size=V), PLAIN_TIMES)
    for row in range(BATCH):
        alone = process.corrupt(
            SoftTokens.hard(words[row : row + 1], vocab_size=V),
            PLAIN_TIMES[row : row + 1],
            noise=Noise.of_samples(0, samples=[row]),
        )
        assert alone.x_t[0].equal(together.x_t[row])


def test_positions_of_the_loss_are_the_masked_ones_and_times_are_per_sequence(process, generator):
    noisy = corrupted(process, hard(generator), PLAIN_TIMES)
    assert noisy.positions.equal((noisy.x_t == MASK).flatten().nonzero()[:, 0])
    assert noisy.x_in.equal(noisy.x_t)
    assert_close(noisy.at_t.alpha, 1 - (1 - EPS) * PLAIN_TIMES)


@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_corrupt_never_changes_its_input(process, generator, t):
    x_0 = soft(generator)
    tokens, probs = x_0.tokens.clone(), x_0.probs.detach().clone()
    noisy = corrupted(process, x_0, torch.full((BATCH,), t))
    assert noisy.x_0 is x_0
    noisy.x_t.fill_(-1)
    assert x_0.tokens.equal(tokens)
    assert x_0.probs.equal(probs)


def test_the_state_never_carries_a_graph(process, generator):
    noisy = corrupted(process, soft(generator), PLAIN_TIMES)
    assert not noisy.x_t.requires_grad
    assert not noisy.x_in.requires_grad
    assert noisy.x_0.probs.requires_grad


def test_prior_is_all_mask(process):
    assert process.prior(2, 3, noise=Noise([0, 1])).tolist() == [[MASK] * 3] * 2


@pytest.mark.parametrize("mask_id", [-1, V, V + 7])
def test_a_mask_outside_the_vocabulary_is_refused(mask_id):
    with pytest.raises(ValueError, match=rf"mask_id must be in \[0, {V}\), got {mask_id}"):
        MDLM(vocab_size=V, schedule=LogLinear(), mask_id=mask_id)
