"""The gap at the optimal fake is a divergence between paths, as arXiv:2602.19066 states.

Everything is enumerated: sequences of two words from a vocabulary of three, tables for networks,
quadrature for time. The divergence is computed from the rates of the two reverse chains, which
never meet the losses under test.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Noisy, Process
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.processes.udlm import UDLM
from idlm_ds.schedules.base import ScheduleAt
from idlm_ds.schedules.cosine import Cosine
from idlm_ds.schedules.gaussian import GaussianClock, GaussianMap
from idlm_ds.schedules.geometric import Geometric
from idlm_ds.schedules.loglinear import LogLinear

from ..tolerances import assert_close

W, MASK = 3, 3
"""Three words; masked families have a fourth state."""

PROCESSES = {
    "MDLM": MDLM(W + 1, LogLinear(eps=0.0), MASK),
    "MDLM on a cosine": MDLM(W + 1, Cosine(eps=0.05), MASK),
    "SEDD": SEDD(W + 1, LogLinear(eps=0.0), MASK),
    "SEDD, geometric": SEDD(W + 1, Geometric(0.02, 4.0), MASK),
    "UDLM": UDLM(W, LogLinear(eps=0.0)),
    "UDLM on a cosine": UDLM(W, Cosine(eps=0.05)),
    "Duo on its clock": Duo(W, LogLinear(), GaussianClock(GaussianMap(W), -3.0, 1.5)),
}


def quadrature(start: float = 0.0, crowding: int = 2) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on (start, 1), crowded where noise is small."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(32))
    v = (nodes + 1) / 2
    slope = crowding * v ** (crowding - 1)
    return start + (1 - start) * v**crowding, (1 - start) * weights / 2 * slope


def kl(p: Tensor, q: Tensor) -> float:
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum().item()


def random_table(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def random_joint(seed: int) -> Tensor:
    """A distribution of two words that depend on each other."""
    return random_table(seed, W * W).softmax(-1).view(W, W)


@dataclass
class World:
    """All sequences and all their noised states, at some times.

    Axes: T times, a and b the clean words, i and j the states, l the position, y a new state.
    A distribution p has axes a b. A network is a table of raw scores with axes T i j l y.
    """

    process: Process
    t: Tensor

    @property
    def at(self) -> ScheduleAt:
        return getattr(self.process, "clock", self.process.schedule).at(self.t)

    @property
    def states(self) -> int:
        return self.process.vocab_size

    def kernel(self) -> Tensor:
        """Probability of a state given a clean word, axes T a i."""
        alpha, lost = self.at.alpha[:, None, None], self.at.masked[:, None, None]
        states = torch.eye(self.states, dtype=torch.float64)
        noise = states[MASK] if isinstance(self.process, Absorbing) else states.mean(0)
        return alpha * states[:W] + lost * noise

    def marginal(self, p: Tensor) -> Tensor:
        """Axes T i j."""
        return torch.einsum("ab,tai,tbj->tij", p, self.kernel(), self.kernel())

    def posterior(self, p: Tensor) -> Tensor:
        """The network that knows p: the word of a position given the state of the *other* one."""
        k, s = self.kernel(), self.states
        first = torch.einsum("ab,tbj->tja", p, k)[:, None].expand(-1, s, -1, -1)
        second = torch.einsum("ab,tai->tib", p, k)[:, :, None].expand(-1, -1, s, -1)
        words = torch.stack([first, second], -2)
        raw = (words / words.sum(-1, keepdim=True)).log()
        if isinstance(self.process, SEDD):
            raw = raw + np.log(W)
        unused = torch.full((*raw.shape[:-1], s - W), 0.3, dtype=torch.float64)
        return torch.cat([raw, unused], -1)

    def reversal(self, p: Tensor) -> Tensor:
        """Rates of the time reversal of noised p, axes T i j l y, from marginals alone."""
        p_t, s = self.marginal(p), self.states
        beta = -self.at.dalpha / self.at.alpha
        into = torch.full((s, s), 1 / s, dtype=torch.float64)
        if isinstance(self.process, Absorbing):
            into = F.one_hot(torch.tensor(MASK), s).double()[:, None].expand(s, s).clone()
        into = into.fill_diagonal_(0) * beta[:, None, None]
        first = torch.einsum("tiy,tyj->tijy", into, p_t)
        second = torch.einsum("tjy,tiy->tijy", into, p_t)
        return torch.stack([first, second], -2) / p_t[..., None, None]

    def rates(self, raw: Tensor) -> Tensor:
        """Rates of the reverse chain that a network stands for, by its parameterisation."""
        alpha, s = self.at.alpha[:, None, None, None, None], self.states
        beta = -self.at.dalpha[:, None, None, None, None] / alpha
        own = torch.stack(torch.meshgrid(torch.arange(s), torch.arange(s), indexing="ij"), -1)
        if isinstance(self.process, Absorbing):
            odds = alpha / (1 - alpha)
            raw = raw[..., :W]
            words = raw.exp() / W if isinstance(self.process, SEDD) else raw.softmax(-1)
            return F.pad(beta * odds * words, (0, 1)) * (own == MASK)[..., None]
        noised = alpha * raw.softmax(-1) + (1 - alpha) / s
        here = own[None, ..., None].expand(len(raw), -1, -1, -1, -1)
        is_other = 1 - F.one_hot(own, s)
        return beta / s * noised / noised.gather(-1, here) * is_other

    def path_rate(self, p: Tensor, true: Tensor, other: Tensor) -> Tensor:
        """Divergence of the reversal of p from another chain per unit of time, axis T."""
        inner = torch.xlogy(true, true) - torch.xlogy(true, other) - true + other
        return (self.marginal(p) * inner.sum((-1, -2))).sum((-1, -2))

    def expect(self, what: str, raws: list[Tensor], p: Tensor, x_0: Tensor | None = None) -> Tensor:
        """Average a loss or gap over the sequences of p and their states, axis T.

        With ``x_0`` (two rows of W) the target is soft: those rows, of which p is the product.
        """
        n, s = len(self.t), self.states
        if x_0 is None:
            clean = torch.cartesian_prod(torch.arange(W), torch.arange(W))
            weight = torch.einsum("ab,tai,tbj->tabij", p, self.kernel(), self.kernel())
        else:
            clean = torch.zeros(1, 2, dtype=torch.long)
            weight = self.marginal(p)
        state = torch.cartesian_prod(torch.arange(s), torch.arange(s))
        rows = n * len(clean) * len(state)
        tokens = clean[None, :, None].expand(n, -1, len(state), -1).reshape(rows, 2)
        x_t = state[None, None].expand(n, len(clean), -1, -1).reshape(rows, 2)
        target = SoftTokens.hard(tokens, vocab_size=s)
        if x_0 is not None:
            probs = F.pad(x_0, (0, s - W)).repeat(rows, 1)
            target = SoftTokens(tokens, torch.arange(2 * rows), probs)
        here = World(self.process, self.t.repeat_interleave(rows // n))
        positions = self.process.undecided(x_t)
        noisy = Noisy(target, x_t, x_t, here.at, positions)
        laid = [
            raw[:, None].expand(-1, len(clean), -1, -1, -1, -1).reshape(2 * rows, s)[positions]
            for raw in raws
        ]
        value = getattr(self.process, what)(*laid, noisy)
        per_row = torch.zeros(rows, dtype=torch.float64).index_add(0, positions // 2, value)
        return (per_row * weight.flatten()).view(n, -1).sum(-1)


@pytest.fixture(params=PROCESSES.values(), ids=PROCESSES.keys())
def process(request) -> Process:
    return request.param


@pytest.mark.parametrize("seed", [0, 1])
def test_gap_at_the_optimal_fake_is_the_divergence_of_paths(process, seed):
    p, teacher = random_joint(10 + seed), random_joint(20 + seed)
    t, weights = quadrature()
    world = World(process, t)
    gap = world.expect("gap", [world.posterior(teacher), world.posterior(p)], p)
    rate = world.path_rate(p, world.reversal(p), world.reversal(teacher))
    torch.testing.assert_close(gap, rate, rtol=1e-9, atol=1e-9)
    # A teacher that knows its own distribution: both chains reverse the same noise, so the
    # divergence of paths is that of the clean words, less what noise leaves of it at t=1.
    at_ends = World(process, torch.tensor([0.0, 1.0], dtype=torch.float64))
    pairs = zip(at_ends.marginal(p), at_ends.marginal(teacher), strict=True)
    clean, noise = (kl(*pair) for pair in pairs)
    assert clean > 0.1
    assert (gap * weights).sum().item() == pytest.approx(clean - noise, abs=1e-8)


def test_gap_is_zero_only_where_the_student_is_the_teacher(process):
    teacher, other = random_joint(20), random_joint(21)
    t, weights = quadrature()
    world, total = World(process, t), []
    for share in (0.0, 0.02, 0.3, 1.0):
        p = (1 - share) * teacher + share * other
        gap = world.expect("gap", [world.posterior(teacher), world.posterior(p)], p)
        assert (gap > -1e-12).all()
        total.append((gap * weights).sum().item())
    assert abs(total[0]) < 1e-12
    assert 1e-5 < total[1] < total[2] < total[3]


def test_any_other_fake_makes_the_gap_smaller_and_the_optimal_one_learns_nothing(process):
    p = random_joint(10)
    world = World(process, torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64))
    fake = world.posterior(p).requires_grad_()
    best = world.expect("loss", [fake], p)
    (grad,) = torch.autograd.grad(best.sum(), fake)
    assert_close(grad, torch.zeros_like(grad))
    for seed in range(3):
        elsewhere = fake.detach() + 0.3 * random_table(seed, *fake.shape)
        assert (world.expect("loss", [elsewhere], p) > best + 1e-4).all()


def test_loss_of_the_optimal_fake_is_the_information_that_noise_destroys(process):
    """Over time it adds up to I(x_0; x at t=0) - I(x_0; x at t=1), for clean words the entropy."""
    p = random_joint(10)
    # Losses of uniform families have a logarithm at t=0.
    t, weights = quadrature(crowding=4)
    world = World(process, t)
    got = (world.expect("loss", [world.posterior(p)], p) * weights).sum().item()
    both = World(process, torch.tensor([0.0, 1.0], dtype=torch.float64))
    kernel = both.kernel()
    joint = torch.einsum("ab,tai,tbj->tabij", p, kernel, kernel)
    product = p[None, :, :, None, None] * both.marginal(p)[:, None, None]
    known, left = (kl(*pair) for pair in zip(joint, product, strict=True))
    assert got == pytest.approx(known - left, abs=1e-6)
    if process.schedule == LogLinear(eps=0.0):
        assert got == pytest.approx(-torch.xlogy(p, p).sum().item(), abs=1e-6)


def test_a_teacher_that_is_nobodys_posterior_still_bounds_the_divergence_of_words(process):
    """Its scores are arbitrary, so its chain ends somewhere else than any noised distribution."""
    start, p = 0.05, random_joint(10)
    scores = random_table(30, process.vocab_size, process.vocab_size, 2, process.vocab_size)
    t, weights = quadrature(start)
    world = World(process, t)
    teacher = scores.expand(len(t), -1, -1, -1, -1)
    gap = world.expect("gap", [teacher, world.posterior(p)], p)
    rate = world.path_rate(p, world.reversal(p), world.rates(teacher))
    torch.testing.assert_close(gap, rate, rtol=1e-9, atol=1e-9)

    # Where the teacher's chain gets to from the student's noise.
    steps = 400
    grid = torch.linspace(1, start, steps + 1, dtype=torch.float64)
    chain = World(process, (grid[:-1] + grid[1:]) / 2)
    rates = chain.rates(scores.expand(steps, -1, -1, -1, -1))
    eye = torch.eye(process.vocab_size, dtype=torch.float64)
    moves = torch.einsum("tijy,jz->tijyz", rates[..., 0, :], eye)
    moves = moves + torch.einsum("tijz,iy->tijyz", rates[..., 1, :], eye)
    moves = moves.flatten(3, 4).flatten(1, 2)
    moves = moves - torch.diag_embed(moves.sum(-1))
    at_ends = World(process, torch.tensor([start, 1.0], dtype=torch.float64))
    words, state = at_ends.marginal(p).flatten(1)
    for transition in torch.matrix_exp(moves * (1 - start) / steps):
        state = state @ transition
    assert state.sum().item() == pytest.approx(1, abs=1e-9)
    assert kl(words, state) > 0.01
    assert (gap * weights).sum().item() > kl(words, state) + 0.01


def test_a_masked_teacher_is_judged_in_both_orders():
    """Masks fall in random order, so paths diverge by the mean over orders of what they say."""
    p, scores = random_joint(10), random_table(31, W + 1, W + 1, 2, W + 1)
    t, weights = quadrature()
    world = World(PROCESSES["MDLM"], t)
    gap = world.expect("gap", [scores.expand(len(t), -1, -1, -1, -1), world.posterior(p)], p)
    answers = scores[..., :W].softmax(-1)
    left, right = answers[MASK, MASK]
    after_left = torch.stack([answers[a, MASK, 1] for a in range(W)])
    after_right = torch.stack([answers[MASK, b, 0] for b in range(W)], 1)
    left_first, right_first = left[:, None] * after_left, right * after_right
    expected = (kl(p, left_first) + kl(p, right_first)) / 2
    assert (gap * weights).sum().item() == pytest.approx(expected, abs=1e-9)
    assert expected > kl(p, (left_first + right_first) / 2) + 1e-3


def test_soft_targets_give_the_gap_of_words_drawn_from_them(process):
    """The student is a mixture over its inputs; given one, its words are independent.

    States are drawn from ``alpha G + (1 - alpha) noise``, which Duo does only for hard targets.
    """
    shares = torch.tensor([0.35, 0.65], dtype=torch.float64)
    students = random_table(40, 2, 2, W).softmax(-1)
    products = [torch.outer(*rows) for rows in students]
    p, teacher = sum(w * q for w, q in zip(shares, products, strict=True)), random_joint(20)
    world = World(process, quadrature()[0])
    raws = [world.posterior(teacher), world.posterior(p)]
    drawn = world.expect("gap", raws, p)
    soft = sum(
        w * world.expect("gap", raws, q, rows)
        for w, q, rows in zip(shares, products, students, strict=True)
    )
    assert_close(soft, drawn)
    assert (drawn > 1e-3).any()


@pytest.mark.parametrize("is_unbiased", [True, False], ids=["unbiased", "published"])
def test_a_fixed_weight_makes_the_gradient_of_uniform_families_right_on_average(is_unbiased):
    """Averaged over states, which no gradient passes through, against that of the average.

    Networks answer alike whatever the other word is: through what they are shown the average has
    one more derivative, which neither form has.
    """
    process = UDLM(W, LogLinear(eps=0.0), is_unbiased=is_unbiased)
    world = World(process, torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64))
    rows = random_table(40, 2, W).softmax(-1).requires_grad_()
    answers = [random_table(seed, 2, W).softmax(-1) for seed in (20, 21)]
    raws = [world.posterior(torch.outer(*each)) for each in answers]

    def gradient(law: Tensor, *, of: Process) -> Tensor:
        value = World(of, world.t).expect("gap", raws, law, rows).sum()
        slope = torch.autograd.grad(value, rows)[0]
        return slope - slope.mean(-1, keepdim=True)

    product = torch.outer(*rows)
    true = gradient(product, of=UDLM(W, LogLinear(eps=0.0)))
    got = gradient(product.detach(), of=process)
    off = (got - true).norm() / true.norm()
    assert off < 1e-12 if is_unbiased else off > 0.05
