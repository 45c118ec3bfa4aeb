"""Ranks agree on when to save by time, and meet rarely for it."""

import math
from itertools import accumulate
from types import SimpleNamespace

import pytest

from idlm_ds.errors import NumericsError, Preempted, UserError
from idlm_ds.train.hooks.checkpointing import CLOSING_S, Checkpointer, Watch


class Ranks:
    """A process group whose first rank's words are kept for the others."""

    def __init__(self, told: list | None = None) -> None:
        self.is_first = told is None
        self.told = [] if told is None else list(told)

    def agree(self, value: object) -> object:
        if self.is_first:
            self.told.append(value)
            return value
        assert value is None
        return self.told.pop(0)


class Writer:
    is_asynchronous = is_writing = has_failed = has_crashed = False

    def wait(self) -> None:
        if self.has_failed:
            raise UserError("disk full")


def saves(seconds: list[float], minutes: float, told: list | None = None) -> tuple[list[int], list]:
    """Phases, of these lengths, after which a rank saves; and what the first one told."""
    world, moments = Ranks(told), iter([0.0, *accumulate(seconds)])
    now = [0.0]

    def clock() -> float:
        return now[0]

    watch, saved = Watch(Writer(), minutes=minutes, world=world, clock=clock), []
    next(moments)
    for phase, now[0] in enumerate(moments, start=1):
        if watch.is_due():
            watch.restart()
            saved.append(phase)
    return saved, world.told


STEADY = [1.0] * 2000
SLOWER = [1.0] * 300 + [2.0] * 700
FASTER = [3.0] * 100 + [1.0] * 1000
UNEVEN = [0.5, 0.5, 4.0] * 300


@pytest.mark.parametrize("seconds", [STEADY, SLOWER, FASTER, UNEVEN], ids=len)
def test_a_checkpoint_is_due_every_so_many_minutes(seconds):
    saved, _ = saves(seconds, minutes=10.0)
    moments = [0.0, *accumulate(seconds)]
    gaps = [moments[b] - moments[a] for a, b in zip([0, *saved], saved, strict=False)]
    assert len(gaps) == sum(seconds) // 600
    assert all(600.0 <= gap <= 600.0 + 2 * max(seconds) for gap in gaps)


def test_ranks_meet_in_few_phases_and_all_do_as_the_first_says():
    saved, told = saves(STEADY, minutes=10.0)
    assert saved == [600, 1200, 1800]
    assert len(told) <= 4 * (2 * math.log2(600) + 2)
    # Other clocks say nothing.
    assert saves([7.0] * 2000, minutes=10.0, told=told)[0] == saved


def test_without_minutes_and_writes_beside_training_ranks_never_meet():
    assert saves(STEADY, minutes=0.0) == ([], [])


def test_a_phase_longer_than_the_time_is_followed_by_a_checkpoint():
    assert saves([120.0] * 4, minutes=1.0)[0] == [1, 2, 3, 4]


@pytest.mark.parametrize("fails_after", [1, 5, 40])
def test_a_failed_write_ends_the_run_soon_and_on_every_rank_in_the_same_phase(fails_after):
    def phase_of_end(told: list | None) -> tuple[int, list]:
        writer, world, phases = Writer(), Ranks(told), iter(range(1, 1000))
        writer.is_asynchronous = True
        watch = Watch(writer, minutes=0.0, world=world, clock=lambda: 0.0)

        def train() -> None:
            for phase in phases:
                writer.is_writing = phase < fails_after
                # Another rank may know later than the first, but then waits for its own writer.
                writer.has_failed = phase >= fails_after or not world.is_first
                assert not watch.is_due()

        with pytest.raises(UserError, match="^disk full$"):
            train()
        return next(phases) - 1, world.told

    phase, told = phase_of_end(None)
    assert fails_after <= phase <= 2 * fails_after
    assert len(told) <= 2 + math.log2(phase)
    assert phase_of_end(told)[0] == phase


def test_an_error_that_only_this_rank_has_is_raised_after_the_next_phase():
    writer = Writer()
    watch = Watch(writer, minutes=0.0, world=Ranks())
    assert not watch.is_due()
    writer.has_failed = writer.has_crashed = True
    with pytest.raises(UserError, match="disk full"):
        watch.is_due()


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (None, None),
        (UserError("disk full"), None),
        (NumericsError("nan"), None),
        (Preempted(), None),
        (MemoryError(), CLOSING_S),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_one_rank_waits_little_for_a_write_that_all_must_end(error, limit):
    limits = []
    writer = SimpleNamespace(join=limits.append)
    saver = Checkpointer(writer, None, {}, every=1, stop=2, watch=None)
    try:
        if error is not None:
            raise error
    except BaseException:
        saver.close()
    else:
        saver.close()
    assert limits == [limit]
