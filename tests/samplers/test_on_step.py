"""What a watcher of a chain is shown."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.samplers.blockwise import sample_blockwise
from idlm_ds.samplers.clamped import Given, sample_clamped
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.samplers.reverse import OnStep, Sampled

from .test_reverse import FAMILIES, LENGTH, MASK, Neighbours, mask_of

BATCH, STEPS = 6, 5
ROWS = [[None] * LENGTH, [1, None, None, 0, None, None, 1], [0] * LENGTH]
PROMPT = torch.tensor([[0, MASK], [1, 1], [3, 0], [0, 0], [1, 0], [3, 3]])
"""One prompt holds a mask, which stays."""

Run = Callable[[Noise, OnStep | None], Sampled]


def chain(process, config: SamplerConfig) -> tuple[Tensor, Run]:
    def run(noise: Noise, on_step: OnStep | None) -> Sampled:
        network = Neighbours(process.vocab_size)
        x = process.prior(BATCH, LENGTH, noise=noise)
        return config.draw(process, network, x, noise=noise, on_step=on_step)

    return process.prior(BATCH, LENGTH, noise=Noise(range(BATCH))), run


def clamped(process, config: SamplerConfig) -> tuple[Tensor, Run]:
    given = Given.of(ROWS * 2)

    def run(noise: Noise, on_step: OnStep | None) -> Sampled:
        network = Neighbours(process.vocab_size)
        return sample_clamped(process, network, given, config, noise=noise, on_step=on_step)

    return given.put(process.prior(BATCH, LENGTH, noise=Noise(range(BATCH)))), run


def blockwise(process: Absorbing, **settings: Any) -> tuple[Tensor, Run]:
    def run(noise: Noise, on_step: OnStep | None) -> Sampled:
        network = Neighbours(process.vocab_size)
        shape = {"length": 6, "block": 3, "temperature": 0.8}
        return sample_blockwise(
            process, network, PROMPT, noise=noise, on_step=on_step, **shape, **settings
        )

    return torch.cat([PROMPT, torch.full((BATCH, 6), MASK)], 1), run


GRID = uniform_grid(STEPS)[1:].tolist()
CONFIGS = [
    SamplerConfig(steps=STEPS, tail=tail, precision=precision)
    for tail in ("ancestral", "greedy", "none")
    for precision in ("float64", "float32")
]
SEDD = FAMILIES["sedd"]
# Name: family, start and sampler, the times it reaches.
CASES = {
    f"{kind.__name__} {name} {config.tail} {config.precision}": (
        process,
        kind(process, config),
        GRID[:-1] if config.tail == "none" else GRID,
    )
    for name, process in FAMILIES.items()
    for kind in (chain, clamped)
    for config in CONFIGS
}
CASES |= {
    name: (SEDD, chain(SEDD, SamplerConfig(steps=STEPS, sampler=name)), GRID)
    for name in ("analytic", "euler")
}
CASES |= {
    "blockwise": (SEDD, blockwise(SEDD, steps=4), [4 / 6, 3 / 6, 1 / 6, 0.0]),
    "blockwise, steps to spare": (
        SEDD,
        blockwise(SEDD, steps=8, remasking="random", guidance=0.5),
        [5 / 6, 4 / 6, 3 / 6, 3 / 6, 2 / 6, 1 / 6, 0.0, 0.0],
    ),
}
cases = pytest.mark.parametrize(("process", "case", "times"), CASES.values(), ids=CASES.keys())


class Watcher:
    """Keeps what it is shown, and copies made at the time."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, float]] = []
        self.states: list[Tensor] = []
        self.revealed: list[Tensor] = []
        self.copies: list[Tensor] = []

    def __call__(self, k: int, t: float, x_t: Tensor, revealed: Tensor) -> None:
        self.steps.append((k, t))
        self.states.append(x_t)
        self.revealed.append(revealed)
        self.copies.append(x_t.clone())


@cases
def test_a_watcher_changes_no_draw(process, case, times):
    _, run = case
    seen, unseen = Noise(range(BATCH)), Noise(range(BATCH))
    watched, plain = run(seen, Watcher()), run(unseen, None)
    assert watched.tokens.equal(plain.tokens)
    assert watched.evaluations.equal(plain.evaluations)
    assert seen.uniform(1).equal(unseen.uniform(1))


@cases
def test_steps_are_counted_from_zero_and_say_the_time_they_reach(process, case, times):
    watcher = Watcher()
    case[1](Noise(range(BATCH)), watcher)
    assert [k for k, _ in watcher.steps] == [*range(len(times))]
    assert [t for _, t in watcher.steps] == pytest.approx(times, abs=1e-12)
    assert all(type(t) is float for _, t in watcher.steps)


@cases
def test_states_replay_to_the_sample_and_may_be_kept(process, case, times):
    (start, run), watcher = case, Watcher()
    tokens = run(Noise(range(BATCH)), watcher).tokens
    for state, copy in zip(watcher.states, watcher.copies, strict=True):
        assert state.equal(copy)
    assert watcher.states[-1].equal(tokens)
    x = start
    for state, revealed in zip(watcher.states, watcher.revealed, strict=True):
        x = torch.where(revealed, state, x)
        assert x.equal(state)
    ever = torch.stack(watcher.revealed).any(0)
    assert (ever | (tokens == start)).all()
    assert ever.any()


@cases
def test_revealed_are_the_positions_a_step_decided(process, case, times):
    (start, run), watcher = case, Watcher()
    run(Noise(range(BATCH)), watcher)
    states = [start, *watcher.states]
    for (before, after), revealed in zip(pairwise(states), watcher.revealed, strict=True):
        assert revealed.dtype == torch.bool
        assert revealed.equal(before != after)
        if mask_of(process) is not None:
            assert (before[revealed] == MASK).all()
            assert (after[revealed] != MASK).all()
            assert after[before != MASK].equal(before[before != MASK])


@pytest.mark.parametrize("process", FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize("tail", ["ancestral", "greedy"])
def test_known_tokens_stand_in_every_state_and_are_never_revealed(process, tail):
    given, watcher = Given.of(ROWS * 2), Watcher()
    _, run = clamped(process, SamplerConfig(steps=STEPS, tail=tail))
    run(Noise(range(BATCH)), watcher)
    for state, revealed in zip(watcher.states, watcher.revealed, strict=True):
        assert state[given.known].equal(given.tokens[given.known])
        assert not revealed[given.known].any()
