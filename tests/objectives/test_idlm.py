import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise, stratified_times
from idlm_ds.objectives.idlm import IDLM
from idlm_ds.processes.base import Process, Read
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.processes.udlm import UDLM
from idlm_ds.schedules.gaussian import GaussianMap, TokenClock
from idlm_ds.schedules.loglinear import LogLinear
from idlm_ds.tensor_types import SoftInput
from tests import mixtures, plain_idlm
from tests.heads import ScoresOf

from ..tolerances import assert_close

V, MASK = 5, 4
TEACHER = torch.tensor([0.55, 0.25, 0.15, 0.05], dtype=torch.float64)
"""What the teacher of the toy world says at every position, whatever it sees."""


class Memoryless:
    """A network with one answer, and a record of how it was called."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores
        self.calls: list[tuple[Tensor, Tensor, bool]] = []

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        self.calls.append((x, sigma, torch.is_grad_enabled()))
        return read(ScoresOf(lambda positions: self.scores.expand(len(positions), -1)))


def with_mask_score(words: Tensor) -> Tensor:
    """Scores of the words, and one for the mask that must not matter."""
    return torch.cat([words, torch.full((1,), 2.5, dtype=words.dtype)])


def teacher() -> Memoryless:
    return Memoryless(with_mask_score(TEACHER.log()))


def divergence(student: Tensor) -> float:
    """KL of the student's word to the teacher's."""
    log_student = student.detach()[:MASK].log_softmax(-1)
    return (log_student.exp() * (log_student - TEACHER.log())).sum().item()


def noise_for(step: int, use: str, batch: int) -> Noise:
    return Noise.of_samples(0, use, step, samples=range(batch))


@pytest.fixture
def objective() -> IDLM:
    return IDLM(MDLM(vocab_size=V, schedule=LogLinear(eps=1e-3), mask_id=MASK))


def student_words(objective: IDLM, scores: Tensor, step: int, batch: int) -> SoftTokens:
    """One-word sequences from a student that is shown an almost surely masked word."""
    tokens = torch.zeros(batch, 1, dtype=torch.long)
    everything = torch.ones(batch, dtype=torch.float64)
    given = objective.student_input(tokens, everything, noise=noise_for(step, "input", batch))
    raw = plain_idlm.generate(Memoryless(scores), given)
    return objective.process.relax(raw, given)


def descend(objective: IDLM, *, sign: float, steps: int) -> list[float]:
    """Train a one-word student against a fake that is always optimal."""
    batch = 16
    scores = with_mask_score(torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64))
    scores.requires_grad_()
    optimizer = torch.optim.SGD([scores], lr=0.3)
    path = [divergence(scores)]
    for step in range(steps):
        x_0 = student_words(objective, scores, step, batch)
        fake = Memoryless(scores.detach().clone())
        t = stratified_times(0, "time", step, count=batch, t_min=1e-2)
        gap = plain_idlm.gap(
            objective, teacher(), fake, x_0, t, noise=noise_for(step, "again", batch)
        )
        optimizer.zero_grad()
        (sign * gap.sum() / batch).backward()
        optimizer.step()
        path.append(divergence(scores))
    return path


def test_descending_the_gap_brings_the_student_to_the_teacher(objective):
    path = descend(objective, sign=1.0, steps=300)
    assert path[0] > 0.5
    assert path[-1] < 0.01


def test_climbing_the_gap_drives_the_student_away(objective):
    path = descend(objective, sign=-1.0, steps=60)
    assert path[-1] > path[0] + 0.2


def test_gap_under_the_optimal_fake_is_the_divergence_over_t(objective):
    scores = with_mask_score(torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64))
    x_0 = student_words(objective, scores, 0, 8)
    t = torch.full((8,), 0.25, dtype=torch.float64)
    gap = plain_idlm.gap(
        objective, teacher(), Memoryless(scores), x_0, t, noise=noise_for(0, "again", 8)
    )
    assert 0 < len(gap) < 8
    assert len(x_0.positions) == 8
    assert_close(gap, torch.full_like(gap, divergence(scores) / 0.25))


def test_the_students_own_distribution_is_where_the_fake_stops_learning(objective):
    scores = with_mask_score(torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64))
    x_0 = student_words(objective, scores, 0, 8)
    t = torch.full((8,), 0.5, dtype=torch.float64)
    gradients = []
    for answer in (scores, teacher().scores):
        fake = Memoryless(answer.clone().requires_grad_())
        loss = plain_idlm.fake_loss(objective, fake, x_0, t, noise=noise_for(0, "again", 8))
        gradients.append(torch.autograd.grad(loss.sum(), fake.scores)[0])
    assert_close(gradients[0], torch.zeros_like(scores))
    assert gradients[1][:MASK].abs().max() > 0.1


def test_student_has_no_gradient_while_the_fake_is_the_teacher(objective):
    scores = with_mask_score(torch.zeros(4, dtype=torch.float64)).requires_grad_()
    x_0 = student_words(objective, scores, 0, 8)
    t = torch.full((8,), 0.5, dtype=torch.float64)
    gap = plain_idlm.gap(objective, teacher(), teacher(), x_0, t, noise=noise_for(0, "again", 8))
    (grad,) = torch.autograd.grad(gap.sum(), scores)
    assert (gap == 0).all()
    assert (grad == 0).all()


def test_gap_is_the_difference_of_two_losses_on_one_draw(objective, generator):
    tokens = torch.randint(0, MASK, (6, 7), generator=generator)
    x_0 = SoftTokens.hard(tokens, vocab_size=V)
    t = torch.linspace(0.2, 0.9, 6, dtype=torch.float64)
    fake = Memoryless(torch.randn(V, generator=generator, dtype=torch.float64))

    def losses(network: Memoryless) -> Tensor:
        return plain_idlm.fake_loss(objective, network, x_0, t, noise=noise_for(3, "again", 6))

    gap = plain_idlm.gap(objective, teacher(), fake, x_0, t, noise=noise_for(3, "again", 6))
    assert_close(gap, losses(teacher()) - losses(fake))


def test_teacher_and_fake_see_the_same_state_and_build_no_graph(objective):
    scores = with_mask_score(torch.zeros(4, dtype=torch.float64)).requires_grad_()
    x_0 = student_words(objective, scores, 0, 8)
    networks = (teacher(), Memoryless(scores))
    t = torch.linspace(0.2, 0.9, 8, dtype=torch.float64)
    gap = plain_idlm.gap(objective, *networks, x_0, t, noise=noise_for(0, "again", 8))
    assert gap.requires_grad
    (first,), (second,) = (network.calls for network in networks)
    assert first[0].equal(second[0])
    assert_close(first[1], -torch.log(1 - 0.999 * t))
    assert first[1].equal(second[1])
    assert (first[2], second[2]) == (False, False)


def test_student_is_shown_noised_data_and_its_time(objective, generator):
    tokens = torch.randint(0, MASK, (50, 20), generator=generator)
    t = torch.full((50,), 0.3, dtype=torch.float64)
    given = objective.student_input(tokens, t, noise=noise_for(0, "input", 50))
    is_masked = given.x_in == MASK
    assert given.x_in[~is_masked].equal(tokens[~is_masked])
    assert is_masked.double().mean().item() == pytest.approx(0.3, abs=0.06)
    student = Memoryless(torch.zeros(V))
    raw = plain_idlm.generate(student, given)
    assert raw.shape == (int(is_masked.sum()), V)
    ((shown, sigma, _),) = student.calls
    assert shown.equal(given.x_in)
    assert_close(sigma, -torch.log(1 - 0.999 * t))


class Reading:
    """A network whose scores are linear in what it is shown, through an input that may be cut."""

    def __init__(self, seed: int, *, is_cut: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.matrix = torch.randn(V, V, generator=generator, dtype=torch.float64)
        self.is_cut = is_cut
        self.had_graph: list[bool] = []

    def __call__(self, x: Tensor | SoftInput, sigma: Tensor, read: Read, /) -> Tensor:
        if isinstance(x, SoftInput):
            shown = mixtures.rows_of(x, V).softmax(-1)
        else:
            shown = torch.nn.functional.one_hot(x.flatten(), V).double()
        raw = (shown.detach() if self.is_cut else shown) @ self.matrix
        self.had_graph.append(raw.requires_grad)
        return read(ScoresOf(lambda positions: raw[positions]))


def gap_and_gradient(
    process: Process, networks: tuple[Reading, Reading], *, is_input_differentiated: bool
) -> tuple[Tensor, Tensor]:
    """The gap of eight noisy sequences, and what the student's scores get of it."""
    objective = IDLM(process, is_input_differentiated)
    tokens = torch.randint(0, MASK, (8, 6), generator=torch.Generator().manual_seed(1))
    t = torch.linspace(0.3, 0.9, 8, dtype=torch.float64)
    given = objective.student_input(tokens, t, noise=noise_for(0, "input", 8))
    scores = torch.randn(48, V, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    scores = scores[: len(given.positions)].requires_grad_()
    x_0 = process.relax(scores, given)
    gap = plain_idlm.gap(objective, *networks, x_0, t.flip(0), noise=noise_for(0, "again", 8))
    return gap.detach(), torch.autograd.grad(gap.sum(), scores)[0]


def test_the_stopped_gradient_is_that_of_networks_whose_input_is_cut():
    duo = Duo(V, LogLinear(), TokenClock(GaussianMap(V), LogLinear()), tau=0.3)

    def answers(*, is_cut: bool, is_full: bool) -> tuple[Tensor, Tensor, list[bool]]:
        networks = Reading(3, is_cut=is_cut), Reading(4, is_cut=is_cut)
        gap, gradient = gap_and_gradient(duo, networks, is_input_differentiated=is_full)
        return gap, gradient, [had for network in networks for had in network.had_graph]

    gap, full, had_graph = answers(is_cut=False, is_full=True)
    assert had_graph == [True, True]
    stopped_gap, stopped, had_graph = answers(is_cut=False, is_full=False)
    assert had_graph == [False, False]
    cut_gap, cut, _ = answers(is_cut=True, is_full=True)
    assert stopped.equal(cut)
    assert stopped_gap.equal(gap)
    assert cut_gap.equal(gap)
    assert stopped.abs().max() > 0.01
    assert (full - stopped).abs().max() > 0.01


@pytest.mark.parametrize(
    "process",
    [MDLM(V, LogLinear(), MASK), SEDD(V, LogLinear(), MASK), UDLM(V, LogLinear())],
    ids=lambda process: type(process).__name__,
)
def test_where_networks_are_shown_tokens_both_gradients_are_the_same_bits(process):
    networks = Reading(3), Reading(4)
    gap, full = gap_and_gradient(process, networks, is_input_differentiated=True)
    stopped_gap, stopped = gap_and_gradient(process, networks, is_input_differentiated=False)
    assert stopped_gap.equal(gap)
    assert stopped.equal(full)
    assert full.abs().max() > 0.01
