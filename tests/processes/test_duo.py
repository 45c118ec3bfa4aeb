import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.objectives.idlm import IDLM
from idlm_ds.processes.base import Noisy, Read
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.processes.udlm import UDLM
from idlm_ds.schedules.gaussian import DuoClock, GaussianClock, GaussianMap, TokenClock
from idlm_ds.schedules.loglinear import LogLinear
from idlm_ds.tensor_types import SoftInput
from tests import mixtures, plain_idlm
from tests.heads import ScoresOf

from ..tolerances import assert_close, assert_frequencies

BATCH, LENGTH, V = 3, 5, 4
EVERY = torch.arange(BATCH * LENGTH)
TIMES = torch.tensor([0.85, 0.5, 0.15], dtype=torch.float64)
CLOCKS = {
    "gaussian": GaussianClock(GaussianMap(V), gamma_min=-2.5, gamma_max=1.0),
    "tokens": TokenClock(GaussianMap(V), LogLinear()),
}


@pytest.fixture(params=CLOCKS.values(), ids=CLOCKS.keys())
def clock(request) -> DuoClock:
    return request.param


def duo(clock: DuoClock, tau: float = 1e-3) -> Duo:
    return Duo(vocab_size=V, schedule=LogLinear(), clock=clock, tau=tau)


def noise(samples: range = range(BATCH)) -> Noise:
    return Noise.of_samples(0, "again", samples=samples)


def soft(generator: torch.Generator) -> SoftTokens:
    scores = 2 * torch.randn(BATCH * LENGTH, V, generator=generator, dtype=torch.float64)
    tokens = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    return SoftTokens(tokens, EVERY, scores.softmax(-1).requires_grad_())


def amplitudes(clock: DuoClock, t: Tensor = TIMES) -> tuple[Tensor, Tensor]:
    """Of signal and of noise at every position; their squares sum to one."""
    gamma = clock.gamma(t)
    signal = torch.sqrt(1 / (1 + gamma.exp()))
    spread = torch.sqrt(1 - signal**2)
    return tuple(a.repeat_interleave(LENGTH)[:, None] for a in (signal, spread))


def shown(noisy: Noisy) -> SoftInput:
    assert isinstance(noisy.x_in, SoftInput)
    return noisy.x_in


def test_the_hard_state_has_the_marginal_of_uniform_noise(clock):
    """The largest of N noised entries is a token that survives with probability alpha(gamma)."""
    length, word = 60_000, 2
    tokens = torch.full((2, length), word)
    t = torch.tensor([0.25, 0.8], dtype=torch.float64)
    noisy = duo(clock).corrupt(SoftTokens.hard(tokens, vocab_size=V), t, noise=Noise([1, 2]))
    one_hot = F.one_hot(torch.tensor(word), V).double()
    assert (noisy.at_t.alpha.diff() < -0.2).all()
    for row, alpha in zip(noisy.x_t, noisy.at_t.alpha, strict=True):
        marginal = alpha * one_hot + (1 - alpha) / V
        assert_frequencies(row.bincount(minlength=V), marginal)
        pairs = row[::2] * V + row[1::2]
        assert_frequencies(pairs.bincount(minlength=V * V), torch.outer(marginal, marginal))


@pytest.mark.parametrize("vocab_size", [2, 30])
def test_the_marginal_holds_for_any_vocabulary(vocab_size):
    clock = TokenClock(GaussianMap(vocab_size), LogLinear())
    process = Duo(vocab_size, LogLinear(), clock)
    x_0 = SoftTokens.hard(torch.zeros(1, 40_000, dtype=torch.long), vocab_size=vocab_size)
    noisy = process.corrupt(x_0, torch.tensor([0.6]).double(), noise=Noise([4]))
    marginal = torch.full((vocab_size,), 0.999 * 0.6 / vocab_size).double()
    marginal[0] += 1 - 0.999 * 0.6
    assert_frequencies(noisy.x_t.flatten().bincount(minlength=vocab_size), marginal)


def test_the_input_is_signal_and_standard_normal_noise_over_tau(clock):
    length, tau = 20_000, 0.2
    x_0 = SoftTokens.hard(torch.ones(1, length, dtype=torch.long), vocab_size=V)
    t = torch.tensor([0.5], dtype=torch.float64)
    noisy = duo(clock, tau).corrupt(x_0, t, noise=Noise([1]))
    signal, spread = (a[0].item() for a in amplitudes(clock, t))
    w = tau * mixtures.rows_of(shown(noisy), V).double()
    xi = ((w - signal * F.one_hot(torch.tensor(1), V)) / spread).flatten()
    edges = torch.special.ndtri(torch.linspace(0.1, 0.9, 9, dtype=torch.float64))
    assert_frequencies(torch.bucketize(xi, edges).bincount(minlength=10), torch.full((10,), 0.1))
    assert shown(noisy).shape == (1, length)


def test_the_relaxed_input_becomes_the_hard_state_as_tau_falls(clock, generator):
    x_0 = soft(generator)
    doubts = []
    for tau in (1.0, 0.1, 1e-2, 1e-3, 1e-9):
        noisy = duo(clock, tau).corrupt(x_0, TIMES, noise=noise())
        mixture = mixtures.rows_of(shown(noisy), V).softmax(-1)
        assert mixture.argmax(-1).equal(noisy.x_t.flatten())
        doubts.append(1 - mixture.gather(1, noisy.x_t.flatten()[:, None]).mean().item())
    assert sorted(doubts, reverse=True) == doubts
    assert doubts[0] > 0.3
    assert doubts[-1] < 1e-12


def test_the_gradient_reaches_the_target_through_the_input_alone(clock, generator):
    """The derivative of <c, softmax(w / tau)> is p (c - <p, c>) times the signal over tau."""
    tau = 0.3
    x_0 = soft(generator)
    noisy = duo(clock, tau).corrupt(x_0, TIMES, noise=noise())
    assert not noisy.x_t.requires_grad
    assert not noisy.at_t.alpha.requires_grad
    assert noisy.x_0 is x_0
    c = torch.randn(BATCH * LENGTH, V, generator=generator, dtype=torch.float64)
    p = mixtures.rows_of(shown(noisy), V).softmax(-1)
    (got,) = torch.autograd.grad((c * p).sum(), x_0.probs)
    p = p.detach()
    signal, _ = amplitudes(clock)
    assert_close(got, signal / tau * p * (c - (p * c).sum(-1, keepdim=True)))
    assert got.abs().max() > 0.1
    assert not shown(noisy).detach().requires_grad


def test_hard_sequences_carry_no_graph(clock):
    x_0 = SoftTokens.hard(torch.ones(BATCH, LENGTH, dtype=torch.long), vocab_size=V)
    assert not shown(duo(clock).corrupt(x_0, TIMES, noise=noise())).requires_grad


def test_a_sequence_is_corrupted_the_same_in_any_batch(clock, generator):
    x_0 = soft(generator)
    together = duo(clock).corrupt(x_0, TIMES, noise=noise())
    for row in range(BATCH):
        mine = slice(row * LENGTH, (row + 1) * LENGTH)
        one = SoftTokens(x_0.tokens[row : row + 1], torch.arange(LENGTH), x_0.probs[mine])
        alone = duo(clock).corrupt(one, TIMES[row : row + 1], noise=noise(range(row, row + 1)))
        assert alone.x_t[0].equal(together.x_t[row])
        assert_close(
            mixtures.rows_of(shown(alone), V).softmax(-1).detach(),
            mixtures.rows_of(shown(together), V).softmax(-1)[mine].detach(),
        )


def test_losses_are_those_of_uniform_diffusion_at_the_time_of_the_clock(clock, generator):
    x_0 = soft(generator)
    noisy = duo(clock).corrupt(x_0, TIMES, noise=noise())
    teacher, fake = (torch.randn(BATCH * LENGTH, V, generator=generator) for _ in range(2))
    for name in ("alpha", "dalpha", "masked", "sigma"):
        assert getattr(noisy.at_t, name).equal(getattr(clock.at(TIMES), name))
    uniform = UDLM(vocab_size=V, schedule=LogLinear(eps=0.5))
    assert duo(clock).loss(teacher, noisy).equal(uniform.loss(teacher, noisy))
    assert duo(clock).gap(teacher, fake, noisy).equal(uniform.gap(teacher, fake, noisy))


def test_two_clocks_differ_only_in_how_long_they_stay(generator):
    """At times of equal noise the draws are the same, and a loss per unit of alpha too."""
    gaussian, tokens = CLOCKS["gaussian"], CLOCKS["tokens"]
    same = tokens.inverse(gaussian.at(TIMES).alpha)
    x_0, raw = soft(generator), torch.randn(BATCH * LENGTH, V, generator=generator).double()
    one = duo(gaussian).corrupt(x_0, TIMES, noise=noise())
    two = duo(tokens).corrupt(x_0, same, noise=noise())
    assert one.x_t.equal(two.x_t)
    torch.testing.assert_close(shown(one).scores, shown(two).scores, rtol=1e-8, atol=1e-8)
    per_alpha = [
        duo(gaussian).loss(raw, noisy) / noisy.at_t.dalpha.repeat_interleave(LENGTH)
        for noisy in (one, two)
    ]
    assert_close(per_alpha[0].detach(), per_alpha[1].detach())
    assert (one.at_t.dalpha - two.at_t.dalpha).abs().min() > 0.01


class Linear:
    """A network that reads mixtures: scores are a matrix times the softmax of its input."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def __call__(self, x: SoftInput, sigma: Tensor, read: Read, /) -> Tensor:
        raw = mixtures.rows_of(x, V).softmax(-1) @ self.matrix
        return read(ScoresOf(lambda positions: raw[positions]))


def dense_loss(x: Tensor, matrix: Tensor, x_0: Tensor, i: Tensor, at: tuple[Tensor, ...]) -> Tensor:
    """The loss of uniform diffusion in the form KL + d - log d - 1."""
    alpha, slope = at
    q = alpha * x_0 + (1 - alpha) / V
    q_f = alpha * (x @ matrix).softmax(-1) + (1 - alpha) / V
    kl = (q * (q.log() - q_f.log())).sum(-1, keepdim=True)
    d = q.gather(1, i) / q_f.gather(1, i)
    return -slope / (V * alpha) / q.gather(1, i) * (kl + d - d.log() - 1)


@pytest.mark.parametrize("is_input_differentiated", [True, False])
def test_student_gradient_has_a_direct_path_and_one_through_the_input(
    clock, generator, is_input_differentiated
):
    tau = 0.4
    objective = IDLM(duo(clock, tau), is_input_differentiated)
    student = torch.randn(BATCH * LENGTH, V, generator=generator, dtype=torch.float64)
    student.requires_grad_()
    tokens = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    matrices = [torch.randn(V, V, generator=generator, dtype=torch.float64) for _ in range(2)]

    x_0 = SoftTokens(tokens, EVERY, student.softmax(-1))
    gap = plain_idlm.gap(objective, *(Linear(m) for m in matrices), x_0, TIMES, noise=noise())
    (got,) = torch.autograd.grad(gap.sum(), student)

    probs = student.softmax(-1)
    signal, spread = amplitudes(clock)
    xi = mixtures.normal(noise(), LENGTH, V).double()
    w = signal * probs + spread * xi
    i = w.argmax(-1, keepdim=True)
    x = (w / tau if is_input_differentiated else w.detach() / tau).softmax(-1)
    at_t = clock.at(TIMES)
    at = tuple(u.repeat_interleave(LENGTH)[:, None] for u in (at_t.alpha, at_t.dalpha))
    losses = [dense_loss(x, m, probs, i, at)[:, 0] for m in matrices]
    expected = losses[0] - losses[1]
    assert_close(gap.detach(), expected.detach())
    (wanted,) = torch.autograd.grad(expected.sum(), student)
    assert_close(got, wanted)
    assert got.abs().max() > 0.01


def test_student_has_no_gradient_while_the_fake_is_the_teacher(clock, generator):
    x_0 = soft(generator)
    network = Linear(torch.randn(V, V, generator=generator, dtype=torch.float64))
    gap = plain_idlm.gap(IDLM(duo(clock, 0.1)), network, network, x_0, TIMES, noise=noise())
    assert (gap == 0).all()
    (grad,) = torch.autograd.grad(gap.sum(), x_0.probs)
    assert_close(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(tau):
    with pytest.raises(ValueError, match=f"tau must be positive, got {tau}"):
        duo(CLOCKS["gaussian"], tau)
