"""Corruption and reverse steps, which all masked families share, on MDLM."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.schedules.loglinear import LogLinear

from ..heads import answering
from ..tolerances import assert_close, assert_frequencies
from .test_mdlm import (
    BATCH,
    EPS,
    LENGTH,
    MASK,
    PLAIN_TIMES,
    V,
    at_positions,
    corrupted,
    hard,
    random_scores,
    random_words,
    soft,
)


@pytest.fixture
def process() -> MDLM:
    return MDLM(vocab_size=V, schedule=LogLinear(eps=EPS), mask_id=MASK)


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
    x_s = process.step(x_t, t, s, answering(ask), noise=Noise([1, 2]))
    assert x_t.equal(before)
    (positions,) = asked
    assert positions.equal(((x_t == MASK) & (x_s != MASK)).flatten().nonzero()[:, 0])
    assert (x_s[:, ::4] == 1).all()
    row = process.reverse(raw[None], x_t, t, s, torch.tensor([1]))[0]
    assert_frequencies(x_s[x_t == MASK].bincount(minlength=V), row)


def test_the_last_step_leaves_no_mask(process):
    x_t = torch.full((2, 500), MASK)
    t, s = torch.full((2,), 1e-5).double(), torch.zeros(2).double()
    x_0 = process.step(x_t, t, s, answering(lambda p: torch.zeros(len(p), V)), noise=Noise([1, 2]))
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
