"""The bound on a continuation's likelihood, against enumeration."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from idlm_ds.metrics.continuation import continuation_bound, is_greedy
from idlm_ds.noise import Noise
from idlm_ds.processes.base import Read
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.schedules.loglinear import LogLinear
from tests.heads import ScoresOf

from ..tolerances import within_standard_errors

WORDS, MASK, LENGTH = 3, 3, 4
PROCESS = MDLM(vocab_size=WORDS + 1, schedule=LogLinear(1e-3), mask_id=MASK)


class Joint:
    """The exact answers of a distribution over sequences of four words."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        scores = 1.5 * torch.randn((WORDS,) * LENGTH, generator=generator, dtype=torch.float64)
        self.probs = scores.flatten().softmax(0).view(scores.shape)
        self.sizes: list[int] = []
        self.seen: list[Tensor] = []
        self.sigmas: list[Tensor] = []

    def marginal(self, x: list[int]) -> float:
        """Probability of the words that are visible."""
        index = tuple(slice(None) if token == MASK else token for token in x)
        return self.probs[index].sum().item()

    def answer(self, x: list[int], position: int) -> list[float]:
        """Log-probability of each word at a position, given the visible ones."""
        tries = [[*x[:position], word, *x[position + 1 :]] for word in range(WORDS)]
        return [math.log(self.marginal(t) / self.marginal(x)) for t in tries] + [5.0]

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        self.sizes.append(len(x))
        self.seen += x.clone()
        self.sigmas += sigma

        def project(positions: Tensor) -> Tensor:
            rows = [self.answer(x[p // LENGTH].tolist(), p % LENGTH) for p in positions.tolist()]
            return torch.tensor(rows, dtype=torch.float64)

        return read(ScoresOf(project))


class Inconsistent(Joint):
    """Answers that belong to no one distribution: sharper, the more is visible."""

    def answer(self, x: list[int], position: int) -> list[float]:
        return [v * (1 + x.count(MASK)) / 3 for v in super().answer(x, position)]


ROW = torch.tensor([2, 0, 1, 1])


def bound(denoiser: Joint, open_positions: list[int], row: Tensor = ROW, draws: int = 15, **more):
    settings = {"noise": Noise([5]), "batch": 512} | more
    where = torch.tensor(open_positions)
    return continuation_bound(PROCESS, denoiser, row, where, draws=draws, **settings)


def conditional(joint: Joint, open_positions: list[int]) -> float:
    """Exact log-probability of what is asked, given the rest."""
    context = [MASK if i in open_positions else t for i, t in enumerate(ROW.tolist())]
    return math.log(joint.marginal(ROW.tolist()) / joint.marginal(context))


@pytest.mark.parametrize("open_positions", [[3], [2, 3], [0, 1, 3], [0, 1, 2, 3]], ids=str)
def test_of_consistent_answers_the_bound_is_the_log_likelihood(open_positions):
    joint, sets = Joint(), 2 ** len(open_positions) - 1
    estimate = bound(joint, open_positions, draws=sets)
    assert estimate.nats == pytest.approx(conditional(joint, open_positions), abs=1e-12)
    # All sets there are, each once, and nothing is left to chance.
    assert (estimate.se, estimate.evaluations) == (0.0, sets)
    assert len({tuple(x.tolist()) for x in joint.seen}) == sets


@pytest.mark.parametrize("draws", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_some_of_the_sets_are_right_on_average(draws):
    joint, open_positions, runs = Joint(), [0, 1, 2, 3], 500
    estimates = [
        bound(joint, open_positions, draws=draws, noise=Noise([seed])) for seed in range(runs)
    ]
    values = torch.tensor([estimate.nats for estimate in estimates], dtype=torch.float64)
    se = values.std().item() / runs**0.5
    assert within_standard_errors(values.mean().item(), conditional(joint, open_positions), se)
    # What is told of one run's error is no smaller than its error.
    errors = torch.tensor([estimate.se for estimate in estimates], dtype=torch.float64)
    assert errors.square().mean().sqrt() > 0.95 * values.std()
    assert all(estimate.evaluations == draws for estimate in estimates)


def test_it_is_the_mean_over_all_orders_of_revealing():
    network, open_positions = Inconsistent(), [0, 2, 3]
    each = []
    for order in itertools.permutations(open_positions):
        x = [MASK if i in open_positions else t for i, t in enumerate(ROW.tolist())]
        total = 0.0
        for position in order:
            scores = torch.tensor(network.answer(x, position)[:WORDS])
            total += scores.log_softmax(0)[ROW[position]].item()
            x[position] = ROW[position].item()
        each.append(total)
    assert bound(network, open_positions).nats == pytest.approx(sum(each) / len(each), rel=1e-6)
    assert abs(sum(each) / len(each) - conditional(Joint(), open_positions)) > 0.1


def test_what_is_unknown_beside_the_question_stays_masked():
    row, joint = torch.tensor([2, 0, MASK, MASK]), Joint()
    exact = math.log(joint.marginal(row.tolist()) / joint.marginal([2, MASK, MASK, MASK]))
    assert bound(joint, [1], row).nats == pytest.approx(exact, abs=1e-12)


def test_sizes_of_the_masked_sets_are_stratified_and_weighed():
    joint = Joint()
    estimate = bound(joint, [1, 2, 3], draws=6, batch=4)
    masked = [(x == MASK).sum().item() for x in joint.seen]
    assert sorted(masked) == [1, 1, 2, 2, 3, 3]
    assert joint.sizes == [4, 2]
    values = []
    for x, size in zip(joint.seen, masked, strict=True):
        hidden = [i for i in range(LENGTH) if x[i] == MASK]
        picked = sum(joint.answer(x.tolist(), i)[ROW[i]] for i in hidden)
        values.append(3 / size * picked)
    assert estimate.nats == pytest.approx(sum(values) / 6, abs=1e-12)
    # The time the network is shown is that at which as many are masked.
    for size, sigma in zip(masked, joint.sigmas, strict=True):
        assert sigma.item() == pytest.approx(-math.log(1 - size / LENGTH), abs=1e-12)


@pytest.mark.parametrize("draws", [6, 7])
def test_the_batch_changes_nothing(draws):
    whole = bound(Joint(), [0, 1, 3], draws=draws, batch=50)
    for batch in (1, 4):
        part = bound(Joint(), [0, 1, 3], draws=draws, batch=batch)
        assert part.nats == pytest.approx(whole.nats, abs=1e-12)


def test_ratios_of_sedd_count_by_their_shares():
    process = SEDD(vocab_size=WORDS + 1, schedule=LogLinear(1e-3), mask_id=MASK)
    settings = {"draws": 20, "noise": Noise([5]), "batch": 20}
    estimate = continuation_bound(process, Joint(), ROW, torch.tensor([1, 2]), **settings)
    assert estimate.nats == pytest.approx(bound(Joint(), [1, 2], draws=20).nats, abs=1e-12)


def surest_first(joint: Joint, open_positions: list[int]) -> Tensor:
    """The sequence that is written with the surest word first."""
    x = [MASK if i in open_positions else t for i, t in enumerate(ROW.tolist())]
    while MASK in x:
        options = [
            (value, i, word)
            for i in open_positions
            if x[i] == MASK
            for word, value in enumerate(joint.answer(x, i)[:WORDS])
        ]
        _, position, word = max(options)
        x[position] = word
    return torch.tensor(x)


def test_greedy_is_what_the_surest_words_write():
    joint, open_positions = Joint(), [1, 2, 3]
    best = surest_first(joint, open_positions)
    where = torch.tensor(open_positions)
    assert is_greedy(PROCESS, joint, best, where) == (True, 3)
    for i in open_positions:
        other = best.clone()
        other[i] = (best[i] + 1) % WORDS
        verdict, calls = is_greedy(PROCESS, joint, other, where)
        assert not verdict
        assert calls <= 3
