import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.objectives.self_distillation import DCD, EARLIEST, SDTT, Rounds
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Read
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.processes.udlm import UDLM
from idlm_ds.processes.uniform import Uniform
from idlm_ds.schedules.gaussian import GaussianClock, GaussianMap
from idlm_ds.schedules.loglinear import LogLinear
from tests.heads import ScoresOf

from ..tolerances import assert_close, assert_frequencies, within_standard_errors

V, MASK, WORDS, LENGTH, BATCH = 4, 3, 3, 3, 64
SCHEDULE = LogLinear(eps=1e-3)
MASKED = {kind.__name__: kind(V, SCHEDULE, MASK) for kind in (MDLM, SEDD)}
UNIFORM = {
    "UDLM": UDLM(V, SCHEDULE),
    "Duo": Duo(V, SCHEDULE, GaussianClock(GaussianMap(V), gamma_min=-3.0, gamma_max=2.0)),
}
TIMES = torch.linspace(0.3, 0.95, BATCH, dtype=torch.float64)


@pytest.fixture(params=MASKED)
def masked(request) -> Absorbing:
    return MASKED[request.param]


@pytest.fixture(params=UNIFORM)
def uniform(request) -> Uniform:
    return UNIFORM[request.param]


ROUNDS = Rounds(updates=1, count=1, grid=2)


class Network:
    """Reads every token and the time, and keeps a record of how it was called."""

    def __init__(self, seed: int, length: int = LENGTH) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (length, V, length, V)
        self.reading = 0.6 * torch.randn(shape, generator=generator, dtype=torch.float64)
        self.ageing = 0.3 * torch.randn(length, V, generator=generator, dtype=torch.float64)
        self.reading.requires_grad_()
        self.calls: list[tuple[Tensor, Tensor, bool]] = []

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        self.calls.append((x.clone(), sigma, torch.is_grad_enabled()))
        raw = torch.stack([self.scores(*pair) for pair in zip(x, sigma, strict=True)])
        return read(ScoresOf(lambda positions: raw.flatten(0, 1)[positions]))

    def scores(self, x: Tensor, sigma: Tensor) -> Tensor:
        """At every position of one sequence."""
        return self.reading[torch.arange(len(x)), x].sum(0) + sigma * self.ageing

    def answer(self, x: Tensor, sigma: Tensor, words: int = WORDS) -> Tensor:
        """Log-probabilities of words, without the mask where it is the last id."""
        raw = self.scores(x, sigma).detach()[:, :words]
        return raw - raw.exp().sum(-1, keepdim=True).log()


class Fixed:
    """A network that gives ready-made rows."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows.detach().clone().requires_grad_()

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        return read(ScoresOf(lambda positions: self.rows[: len(positions)]))


def noise(batch: int = BATCH) -> Noise:
    return Noise(range(batch))


def words(generator: torch.Generator, ids: int = WORDS) -> Tensor:
    return torch.randint(0, ids, (BATCH, LENGTH), generator=generator)


def divergence(log_p: Tensor, log_q: Tensor) -> float:
    return (log_p.exp() * (log_p - log_q)).sum().item()


def targets(objective: SDTT, teacher: Network, tokens: Tensor, t: Tensor, dt: float) -> Tensor:
    """What the student is pulled to: its gradient is its answer minus the target."""
    student = Fixed(torch.zeros(tokens.numel(), V, dtype=torch.float64))
    nats = objective.divergence(student, teacher, tokens, t, dt, noise=noise(len(tokens)))
    (grad,) = torch.autograd.grad(nats.sum(), student.rows)
    return 1 / WORDS - grad[: len(nats), :WORDS]


@pytest.mark.parametrize("num_substeps", [1, 2, 3])
def test_the_target_is_the_last_answer_given_before_a_token_appears(
    masked, num_substeps, generator
):
    dt, tokens, teacher, student = 0.09, words(generator), Network(0), Network(1)
    objective = SDTT(masked, ROUNDS, num_substeps=num_substeps)
    nats = objective.divergence(student, teacher, tokens, TIMES, dt, noise=noise())
    assert len(teacher.calls) == num_substeps
    for k, (_, sigma, _) in enumerate(teacher.calls):
        assert_close(sigma, -torch.log(1 - 0.999 * (TIMES - k * dt)))
    ((x_t, sigma_t, _),) = student.calls
    assert x_t.equal(teacher.calls[0][0])
    assert sigma_t.equal(teacher.calls[0][1])
    expected, used = [], []
    for row, position in (x_t == MASK).nonzero().tolist():
        seen = [k for k, (x, _, _) in enumerate(teacher.calls) if x[row, position] == MASK]
        assert seen == list(range(len(seen))), "a token was masked again"
        x, sigma, _ = teacher.calls[seen[-1]]
        target = teacher.answer(x[row], sigma[row])[position]
        guess = student.answer(x_t[row], sigma_t[row])[position]
        expected.append(divergence(target, guess))
        used.append(seen[-1])
    assert set(used) == set(range(num_substeps))
    assert_close(nats.detach(), torch.tensor(expected, dtype=torch.float64))
    assert nats.min() > 0


def test_between_two_answers_tokens_appear_as_in_a_reverse_step(masked):
    t, dt, length, batch = 0.9, 0.4, 2, 8000
    teacher, tokens = Network(0, length), torch.zeros(batch, length, dtype=torch.long)
    targets(SDTT(masked, ROUNDS), teacher, tokens, torch.full((batch,), t).double(), dt)
    (x_t, sigma, _), (x_s, _, _) = teacher.calls
    is_blank = (x_t == MASK).all(1)
    kept = (x_t != MASK).nonzero(as_tuple=True)
    assert x_s[kept].equal(x_t[kept])
    answer = teacher.answer(torch.full((length,), MASK), sigma[0]).exp() * (dt / t)
    one = torch.cat([answer, torch.full((length, 1), 1 - dt / t)], dim=1)
    counts = (x_s[is_blank, 0] * V + x_s[is_blank, 1]).bincount(minlength=V * V)
    assert_frequencies(counts, torch.outer(*one))


class Posterior(Network):
    """The true answers for pairs of words with known probabilities."""

    def __init__(self, pairs: Tensor) -> None:
        super().__init__(0, length=2)
        self.pairs = pairs

    def scores(self, x: Tensor, sigma: Tensor) -> Tensor:
        given = [slice(None) if w == MASK else slice(int(w), int(w) + 1) for w in x]
        p = self.pairs[:, given[1]].sum(1), self.pairs[given[0]].sum(0)
        return torch.nn.functional.pad(torch.stack(p).log(), (0, 1), value=7.0)


def test_a_perfect_teacher_is_its_own_target_on_average(masked, generator):
    pairs = torch.rand(WORDS, WORDS, generator=generator, dtype=torch.float64) ** 2
    pairs /= pairs.sum()
    teacher, tokens = Posterior(pairs), torch.zeros(4000, 2, dtype=torch.long)
    rows = targets(SDTT(masked, ROUNDS), teacher, tokens, torch.full((4000,), 0.9).double(), 0.6)
    x_t = teacher.calls[0][0]
    is_blank = (x_t == MASK).all(1, keepdim=True).expand(-1, 2)[x_t == MASK]
    for position, wanted in enumerate((pairs.sum(1), pairs.sum(0))):
        drawn = rows[is_blank][position::2]
        assert drawn.std(0).max() > 0.05, "the second answer never differs from the first"
        for mean, std, p in zip(drawn.mean(0), drawn.std(0), wanted, strict=True):
            assert within_standard_errors(mean.item(), p.item(), std.item() / len(drawn) ** 0.5)


@pytest.mark.parametrize(("dt", "end"), [(0.0, None), (2.0, EARLIEST)])
def test_steps_of_no_length_and_beyond_the_start_leave_only_the_first_answer(
    masked, dt, end, generator
):
    """In the first case the second answer is the same, in the second no mask is left for it."""
    tokens, student, teacher = words(generator), Network(1), Network(0)
    first = SDTT(masked, ROUNDS, num_substeps=1).divergence(
        student, Network(0), tokens, TIMES, dt, noise=noise()
    )
    both = SDTT(masked, ROUNDS).divergence(student, teacher, tokens, TIMES, dt, noise=noise())
    assert both.equal(first)
    _, (x_s, sigma_s, _) = teacher.calls
    ending = TIMES if end is None else torch.full_like(TIMES, end)
    assert_close(sigma_s, -torch.log(1 - 0.999 * ending))
    assert (x_s == MASK).any().item() is (end is None)


def test_the_divergence_is_zero_at_the_target_and_nowhere_else(masked, generator):
    tokens = words(generator)
    target = targets(SDTT(masked, ROUNDS), Network(0), tokens, TIMES, 0.2)
    rows = torch.nn.functional.pad(target.log(), (0, 1), value=5.0)
    for change, is_zero in ((0.0, True), (0.3, False)):
        student = Fixed(rows + change * torch.tensor([1.0, 0.0, 0.0, 9.0]))
        nats = SDTT(masked, ROUNDS).divergence(
            student, Network(0), tokens, TIMES, 0.2, noise=noise()
        )
        assert (nats.abs() < 1e-12).all().item() is is_zero
        assert (nats > 1e-6).all().item() is not is_zero


def assert_only_the_student_learns(objective: SDTT | DCD, tokens: Tensor) -> None:
    student, teacher = Network(1), Network(0)
    nats = objective.divergence(student, teacher, tokens, TIMES, 0.2, noise=noise())
    nats.sum().backward()
    assert teacher.reading.grad is None
    assert student.reading.grad.abs().max() > 0.1
    assert [has_graph for *_, has_graph in teacher.calls] == [False] * len(teacher.calls)
    assert [has_graph for *_, has_graph in student.calls] == [True]


def test_only_the_student_gets_a_gradient_and_the_teacher_builds_no_graph(
    masked, uniform, generator
):
    assert_only_the_student_learns(SDTT(masked, ROUNDS), words(generator))
    assert_only_the_student_learns(DCD(uniform, ROUNDS), words(generator, V))


def token_clock(process: Uniform) -> LogLinear | GaussianClock:
    return process.clock if isinstance(process, Duo) else process.schedule


def test_student_and_teacher_see_two_moments_of_one_path(uniform, generator):
    dt, tokens, teacher, student = 0.1, words(generator, V), Network(0), Network(1)
    later = (TIMES + dt).clamp(max=1.0)
    nats = DCD(uniform, ROUNDS).divergence(student, teacher, tokens, TIMES, dt, noise=noise())
    ((x_t, sigma_t, _),), ((x_s, sigma_s, _),) = student.calls, teacher.calls
    x_0 = SoftTokens.hard(tokens, vocab_size=V)
    for x, sigma, t in ((x_t, sigma_t, later), (x_s, sigma_s, later - dt)):
        assert x.equal(uniform.corrupt(x_0, t, noise=noise()).x_t)
        assert_close(sigma, token_clock(uniform).at(t).sigma)
    moved = x_s != x_t
    assert moved.any()
    assert x_s[moved].equal(tokens[moved]), "once replaced, a token stays what it became"
    expected = []
    for row in range(BATCH):
        guess = student.answer(x_t[row], sigma_t[row], V)
        target = teacher.answer(x_s[row], sigma_s[row], V)
        expected += [divergence(q, p) for q, p in zip(guess, target, strict=True)]
    assert_close(nats.detach(), torch.tensor(expected, dtype=torch.float64))
    assert nats.min() > 0


def test_a_step_of_no_length_shows_both_the_same_state(uniform, generator):
    tokens, student, teacher = words(generator, V), Network(0), Network(0)
    nats = DCD(uniform, ROUNDS).divergence(student, teacher, tokens, TIMES, 0.0, noise=noise())
    assert student.calls[0][0].equal(teacher.calls[0][0])
    assert (nats == 0).all()


@pytest.mark.parametrize(
    ("t", "dt", "earlier", "later"),
    [
        (0.4, 0.25, 0.4, 0.65),
        (0.9, 0.25, 0.75, 1.0),
        (0.0, 0.25, 0.0, 0.25),
        (0.2, 1.5, 0.0, 1.0),
    ],
)
def test_both_times_stay_between_data_and_noise(uniform, t, dt, earlier, later):
    tokens, student, teacher = torch.zeros(1, LENGTH, dtype=torch.long), Network(1), Network(0)
    DCD(uniform, ROUNDS).divergence(
        student, teacher, tokens, torch.tensor([t], dtype=torch.float64), dt, noise=noise(1)
    )
    for network, time in ((student, later), (teacher, earlier)):
        ((_, sigma, _),) = network.calls
        assert_close(
            sigma, token_clock(uniform).at(torch.tensor([time], dtype=torch.float64)).sigma
        )


def test_rounds_are_even_and_double_the_step():
    rounds = Rounds(updates=10, count=3, grid=16)
    assert [rounds.index(step) for step in range(10)] == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    firsts = [step for step in range(10) if rounds.is_first_of_round(step)]
    assert firsts == [0, 4, 7]
    assert [rounds.length(step) for step in firsts] == [1 / 16, 1 / 8, 1 / 4]


@pytest.mark.parametrize(("updates", "count"), [(1, 1), (3, 3), (7, 2), (100, 6)])
def test_every_round_has_its_share_and_one_first_update(updates, count):
    rounds = Rounds(updates=updates, count=count, grid=2**count)
    of_round = [rounds.index(step) for step in range(updates)]
    assert sorted(of_round) == of_round
    sizes = [of_round.count(i) for i in range(count)]
    assert sum(sizes) == updates
    assert max(sizes) - min(sizes) <= 1
    firsts = [step for step in range(updates) if rounds.is_first_of_round(step)]
    assert firsts == [of_round.index(i) for i in range(count)]
    assert rounds.length(updates - 1) == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, r"count must be in \[1, 10\], got 0"),
        ({"count": 11}, r"count must be in \[1, 10\], got 11"),
        ({"grid": 7}, "grid must be at least 8, got 7"),
    ],
)
def test_rounds_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Rounds(**({"updates": 10, "count": 3, "grid": 8} | change))
