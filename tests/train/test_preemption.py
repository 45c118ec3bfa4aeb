"""The hook that ends a run for a signal, on stubs of the process group."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch

from idlm_ds.train.hooks.preemption import Preemption, signals_on_any_rank
from idlm_ds.train.loop import Stop, run_phases
from idlm_ds.train.signals import SIGNALS, training_begins, watched

from .test_loop import Seen, loader
from .toy import program_of


class OfSeveral:
    """One rank of two; what the other one received is added to every sum."""

    size, is_first = 2, True

    def __init__(self, *others: signal.Signals) -> None:
        self.sums = 0
        self._others = torch.tensor([float(number in others) for number in SIGNALS])

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        self.sums += 1
        return values + self._others


class Sends(Seen):
    """Sends this process a signal in one phase."""

    def after_phase(self, record):
        super().after_phase(record)
        if record.step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)


@pytest.fixture
def watch():
    with watched(75):
        training_begins()
        yield


def test_a_run_ends_after_the_phase_in_which_a_signal_came(watch):
    hook, world = Preemption(SimpleNamespace(size=1)), Sends()
    program = program_of("idlm")
    ending = run_phases(program, loader(), [world, hook], start=1, stop=8)
    assert ending == Stop("SIGUSR1 received", is_preemption=True)
    assert hook.done == 3
    assert [record.step for record in world.records] == [1, 2]


def test_a_signal_to_another_rank_ends_the_run_here_too(watch):
    world = OfSeveral(signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGUSR2)
    assert signals_on_any_rank(world) == "SIGTERM, SIGUSR2"


def test_ranks_agree_by_one_reduction_a_phase(watch):
    world = OfSeveral()
    hook, seen = Preemption(world), Seen()
    assert run_phases(program_of("idlm"), loader(), [seen, hook], start=0, stop=8) is None
    assert world.sums == len(seen.records) == 8
