"""Signals end a loading run at once, wait in a training one, and leave at once when repeated."""

import os
import signal
import subprocess
import sys
import time

import pytest

from idlm_ds.errors import Preempted
from idlm_ds.train.signals import (
    SIGNALS,
    ending,
    loading_begins,
    names,
    received,
    training_begins,
    watched,
)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_run_that_still_loads(number):
    with watched(75):
        loading_begins()
        with pytest.raises(Preempted, match=f"stopped by {number.name} before training began"):
            os.kill(os.getpid(), number)
        assert names(received()) == number.name


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_only_noted_while_a_run_trains(number):
    with watched(75):
        training_begins()
        assert names(received()) == ""
        os.kill(os.getpid(), number)
        assert names(received()) == number.name


def test_a_signal_that_came_too_early_for_an_exception_is_not_lost():
    with watched(75):
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Preempted, match="SIGUSR1"):
            loading_begins()


def test_a_signal_that_something_swallowed_ends_the_run_before_it_trains():
    with watched(75):
        loading_begins()
        with pytest.raises(Preempted):
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Preempted, match="SIGUSR1"):
            training_begins()


def test_a_signal_does_not_change_how_a_run_ends():
    with watched(75):
        loading_begins()
        ending(2)
        os.kill(os.getpid(), signal.SIGTERM)
        assert names(received()) == "SIGTERM"


def test_the_signals_are_given_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    with watched(75):
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(wakeup) == wakeup
    assert names(received()) == ""


def test_without_a_watch_nothing_is_received():
    training_begins()
    assert received() == (False, False, False)


STUCK = """
import ctypes, sys
from idlm_ds.train import signals
signals.SAME_EVENT_S, signals.LOADING_S = map(float, sys.argv[2:])
with signals.watched(75):
    signals.loading_begins()
    if sys.argv[1] == "training":
        signals.training_begins()
    if sys.argv[1] == "ending":
        signals.ending(2)
    mutex = ctypes.create_string_buffer(64)
    lock = ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    try:
        print("ready", flush=True)
        lock(mutex)
    finally:
        lock(mutex)
"""
"""Waits in C for ever, as for ranks that have gone; no handler of Python's runs there."""


@pytest.fixture
def stuck():
    started = []

    def start(stage: str, *, same_event_s: float, loading_s: float) -> subprocess.Popen:
        command = [sys.executable, "-c", STUCK, stage, str(same_event_s), str(loading_s)]
        started.append(process := subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_signal_leaves_where_no_handler_can_run(stuck):
    process = stuck("training", same_event_s=0.0, loading_s=0.1)
    process.send_signal(signal.SIGUSR1)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75


def test_a_run_that_has_failed_leaves_with_its_own_code(stuck):
    process = stuck("ending", same_event_s=60.0, loading_s=0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 2


def test_one_event_that_arrives_twice_is_one_signal(stuck):
    process = stuck("training", same_event_s=60.0, loading_s=0.1)
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.1)
    process.send_signal(signal.SIGUSR1)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)


def test_a_run_that_waits_for_others_while_it_loads_leaves_after_a_while(stuck):
    process = stuck("loading", same_event_s=60.0, loading_s=0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75
