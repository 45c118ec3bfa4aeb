"""Blockwise generation: what is committed when, and what it costs."""

import itertools
import math
import re

import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Read
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.samplers.blockwise import check_blockwise, sample_blockwise
from idlm_ds.samplers.reverse import Sampled
from idlm_ds.schedules.loglinear import LogLinear
from tests.heads import ScoresOf

from ..tolerances import assert_close

V, MASK, EPS = 9, 8, 1e-3
PROCESS = MDLM(vocab_size=V, schedule=LogLinear(EPS), mask_id=MASK)


class Sure:
    """A denoiser with an opinion about every position, more certain of some; keeps a record."""

    def __init__(self, target: list[int], certainty: list[float]) -> None:
        self.scores = torch.zeros(len(target), V)
        self.scores[torch.arange(len(target)), torch.tensor(target)] = torch.tensor(certainty)
        self.scores[:, MASK] = 99.0
        self.seen: list[Tensor] = []
        self.sigmas: list[Tensor] = []
        self.asked: list[list[int]] = []

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        self.seen.append(x.clone())
        self.sigmas.append(sigma)

        def project(positions: Tensor) -> Tensor:
            self.asked.append(positions.tolist())
            return self.scores[positions % x.shape[1]]

        return read(ScoresOf(project))


TARGET = [4, 1, 7, 0, 2, 2, 5, 3, 6, 1, 0, 7, 4, 4]
PROMPT = torch.tensor([TARGET[:2]])
ORDER = [5, 12, 3, 9, 1, 7, 11, 4, 10, 2, 8, 6]
"""Ranks of certainty after the prompt; 1 is the least."""


def sure() -> Sure:
    return Sure(TARGET, [30.0, 30.0, *(float(rank) for rank in ORDER)])


def generate(denoiser, prompt: Tensor = PROMPT, **settings) -> Sampled:
    defaults = {"length": 12, "block": 12, "steps": 12}
    noise = settings.pop("noise", None) or Noise(range(len(prompt)))
    return sample_blockwise(PROCESS, denoiser, prompt, noise=noise, **{**defaults, **settings})


def commits(denoiser: Sure, last: Tensor) -> list[list[int]]:
    """Positions that got their token in each step, from what the network saw of one sequence."""
    states = [*denoiser.seen, last]
    return [
        (before[0] != after[0]).nonzero()[:, 0].tolist()
        for before, after in itertools.pairwise(states)
    ]


def ranked(first: int, last: int, counts: list[int]) -> list[list[int]]:
    """Positions of a block by falling certainty, in pieces."""
    order = iter(sorted(range(first, last), key=lambda p: -ORDER[p - 2]))
    return [sorted(itertools.islice(order, count)) for count in counts]


def test_tokens_are_committed_one_by_one_in_the_order_of_their_confidence():
    denoiser = sure()
    sampled = generate(denoiser)
    assert sampled.tokens[0].tolist() == TARGET
    assert commits(denoiser, sampled.tokens) == ranked(2, 14, [1] * 12)
    assert sampled.evaluations.tolist() == [12]


@pytest.mark.parametrize("block", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("pace", ["a token a step", "a block a step"])
def test_a_block_is_full_before_the_next_is_begun(block, pace):
    denoiser, blocks = sure(), 12 // block
    a_step = 1 if pace == "a token a step" else block
    sampled = generate(denoiser, block=block, steps=12 // a_step)
    expected = [
        ranked(2 + n * block, 2 + (n + 1) * block, [a_step] * (block // a_step))
        for n in range(blocks)
    ]
    assert commits(denoiser, sampled.tokens) == [step for part in expected for step in part]
    assert sampled.tokens[0].tolist() == TARGET


@pytest.mark.parametrize(
    ("block", "steps", "counts"),
    [
        (12, 5, [3, 3, 2, 2, 2]),
        (12, 7, [2, 2, 2, 2, 2, 1, 1]),
        (12, 8, [2, 2, 2, 2, 1, 1, 1, 1]),
        (6, 8, [2, 2, 1, 1]),
        (4, 9, [2, 1, 1]),
    ],
)
def test_steps_that_do_not_divide_a_block_commit_the_rest_first(block, steps, counts):
    denoiser = sure()
    sampled = generate(denoiser, block=block, steps=steps)
    expected = [ranked(2 + at, 2 + at + block, counts) for at in range(0, 12, block)]
    assert commits(denoiser, sampled.tokens) == [step for part in expected for step in part]
    assert sampled.evaluations.tolist() == [steps]


def test_steps_of_a_full_block_run_one_sequence_and_are_not_counted():
    denoiser = sure()
    prompt = PROMPT.expand(3, -1)
    sampled = generate(denoiser, prompt, block=3, steps=20)
    assert sampled.tokens.tolist() == [TARGET] * 3
    assert len(denoiser.seen) == len(denoiser.asked) == 20
    assert [len(x) for x in denoiser.seen] == [3, 3, 3, 1, 1] * 4
    assert [len(p) for p in denoiser.asked] == [9, 6, 3, 0, 0] * 4
    assert sampled.evaluations.tolist() == [12] * 3


@pytest.mark.parametrize("remasking", ["low_confidence", "random"])
def test_only_masked_positions_of_the_current_block_are_projected(remasking):
    denoiser = sure()
    prompt = torch.cat([PROMPT, PROMPT + 1])
    generate(denoiser, prompt, block=4, steps=6, remasking=remasking)
    for step, (seen, asked) in enumerate(zip(denoiser.seen, denoiser.asked, strict=True)):
        first = 2 + step // 2 * 4
        inside = [14 * row + p for row in range(2) for p in range(first, first + 4)]
        assert asked == [p for p in inside if seen.flatten()[p] == MASK]
        # Later blocks are shown, as masks.
        assert seen.shape == (2, 14)
        assert (seen[:, first + 4 :] == MASK).all()
    assert sum(len(asked) for asked in denoiser.asked) == 2 * 3 * (4 + 2)


def test_the_network_is_shown_the_noise_level_at_which_as_many_are_masked():
    denoiser = sure()
    generate(denoiser, block=6, steps=6)
    shares = [12 / 14, 10 / 14, 8 / 14, 6 / 14, 4 / 14, 2 / 14]
    for sigma, share in zip(denoiser.sigmas, shares, strict=True):
        assert_close(sigma, torch.tensor([-math.log(1 - share)], dtype=torch.float64))
    alone = sure()
    alone.scores = alone.scores[2:]
    generate(alone, PROMPT[:, :0])
    # Nothing is visible; the noisiest time there is.
    assert_close(alone.sigmas[0], torch.tensor([-math.log(EPS)], dtype=torch.float64))


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_the_prompt_is_never_touched(guidance):
    prompt = torch.tensor([[3, 3, 0], [7, MASK, 1]])
    before = prompt.clone()
    denoiser = Sure([1] * 7, [1.0] * 7)
    sampled = generate(denoiser, prompt, length=4, block=2, steps=2, guidance=guidance)
    assert prompt.equal(before)
    assert sampled.tokens[:, :3].equal(before)
    assert (sampled.tokens[:, 3:] == 1).all()


def test_a_sequence_may_begin_with_nothing():
    denoiser = Sure(TARGET[2:], [1.0] * 12)
    sampled = generate(denoiser, torch.zeros(2, 0, dtype=torch.long), steps=3)
    assert sampled.tokens.tolist() == [TARGET[2:]] * 2


def test_of_equally_certain_positions_the_left_one_is_first():
    denoiser = Sure(TARGET, [1.0] * 14)
    sampled = generate(denoiser, steps=4)
    assert commits(denoiser, sampled.tokens) == [[2, 3, 4], [5, 6, 7], [8, 9, 10], [11, 12, 13]]


@pytest.mark.parametrize("temperature", [0.0, 1.0, 50.0])
def test_banned_words_and_the_mask_are_never_chosen(temperature):
    prompt = torch.zeros(300, 1, dtype=torch.long)
    target = [0, *([7] * 8)]
    settings = {"length": 8, "block": 8, "steps": 4, "temperature": temperature}
    free = generate(Sure(target, [3.0] * 9), prompt, **settings).tokens[:, 1:]
    assert (free == 7).any()
    banned = generate(Sure(target, [3.0] * 9), prompt, banned=(7, 2), **settings).tokens[:, 1:]
    for tokens in (free, banned):
        assert (tokens != MASK).all()
    assert not ((banned == 7) | (banned == 2)).any()
    left = generate(Sure(target, [3.0] * 9), prompt, banned=[0, 1, 2, 3, 4, 6, 7, MASK], **settings)
    assert (left.tokens[:, 1:] == 5).all()


def test_a_banned_word_does_not_count_as_doubt():
    denoiser = Sure([0, 0], [4.0, 3.0])
    denoiser.scores[0, 1] = 3.9  # two words as good as each other
    denoiser.scores[1, 5] = 9.0  # one good word beside the banned one
    sampled = generate(denoiser, PROMPT[:, :0], length=2, block=2, steps=2, banned=[5])
    assert commits(denoiser, sampled.tokens) == [[1], [0]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "length: must be at least 1, got 0"),
        ({"block": 0}, "block: must divide length 12, got 0"),
        ({"block": 5}, "block: must divide length 12, got 5"),
        ({"block": 24}, "block: must divide length 12, got 24"),
        ({"steps": 0}, "steps: must divide into 1 blocks, got 0"),
        ({"block": 4, "steps": 8}, "steps: must divide into 3 blocks, got 8"),
        ({"temperature": -0.5}, "temperature: must be 0 or more, got -0.5"),
        ({"temperature": math.nan}, "temperature: must be 0 or more, got nan"),
        ({"guidance": -1.0}, "guidance: must be 0 or more, got -1.0"),
        ({"guidance": math.inf}, "guidance: must be 0 or more, got inf"),
        ({"banned": [9]}, "banned: must be ids below 9 and leave a word, got [9]"),
        ({"banned": [-1]}, "banned: must be ids below 9 and leave a word, got [-1]"),
        (
            {"banned": range(8)},
            "banned: must be ids below 9 and leave a word, got [0, 1, 2, 3, 4, 5, 6, 7]",
        ),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else "",
)
def test_a_bad_argument_is_named_before_the_network_is_run(settings, message):
    denoiser = sure()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        generate(denoiser, **settings)
    assert denoiser.seen == []


def test_guidance_needs_a_prompt_to_hide():
    with pytest.raises(ValueError, match="guidance: must be 0 without a prompt, got 2.0"):
        generate(sure(), PROMPT[:, :0], guidance=2.0)


def test_an_unknown_remasking_is_refused_whoever_asks():
    known = "remasking: must be one of .'low_confidence', 'random'., got high_confidence"
    with pytest.raises(ValueError, match=known):
        check_blockwise(PROCESS, 2, length=12, block=12, steps=12, remasking="high_confidence")
