"""Processes that cannot meet say why, in one line and in a bounded time."""

import os
import socket
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from idlm_ds.engine import meeting
from idlm_ds.engine.dist import _device
from idlm_ds.errors import UserError


@pytest.fixture
def port(monkeypatch) -> int:
    """A free port, and the environment of rank 1 of 3 that is to meet others there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, value in {
        "RANK": "1",
        "WORLD_SIZE": "3",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    return port


def refusal(serves: bool, patience: float = 1.0) -> str:
    began = time.monotonic()
    with pytest.raises(UserError) as refused:
        meeting.open_store(serves=serves, patience=patience)
    assert time.monotonic() - began < 30
    assert len(str(refused.value)) <= 200
    assert str(refused.value).isprintable()
    return str(refused.value)


def test_a_used_port_is_named(port):
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        assert f"MASTER_PORT: {port} is in use on {socket.gethostname()}" in refusal(True)


def test_a_first_rank_that_never_comes_is_missed(port):
    assert f"rank 0 does not answer at 127.0.0.1:{port}" in refusal(False)


def test_an_unknown_host_is_named(port, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "no-such-host.invalid")
    assert "rank 0 does not answer at no-such-host.invalid" in refusal(False)


def test_another_program_behind_the_port_is_told_from_the_first_rank(port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert f"what listens on 127.0.0.1:{port} is not rank 0" in refusal(False)


def test_a_store_is_shared(port):
    server = dist.TCPStore(
        "127.0.0.1", port, 3, True, timedelta(seconds=20), wait_for_workers=False
    )
    stores = [meeting.open_store(serves=False, patience=20) for _ in range(2)]
    stores[0].set("word", "heard")
    assert stores[1].get("word") == b"heard"
    del server


def test_ranks_that_do_not_come_are_named(port):
    store = dist.HashStore()
    with pytest.raises(UserError, match=r"^2 of 3 processes did not come within 0 s .*: rank 0, 2"):
        meeting.wait_for_all(store, patience=0)


def test_two_runs_on_one_port_do_not_mix(port):
    store = dist.HashStore()
    store.set("here/1", "process 1 on another")
    with pytest.raises(UserError, match=r"^RANK: process 1 on another already has rank 1 at "):
        meeting.wait_for_all(store, patience=5)


@pytest.mark.parametrize("value", ["0", "-1", "soon", ""])
def test_patience_is_a_number_of_seconds(value, monkeypatch):
    assert meeting.patience_s() == 300
    monkeypatch.setenv("IDLM_JOIN_SECONDS", value)
    with pytest.raises(UserError, match="IDLM_JOIN_SECONDS is .*; allowed: a whole number, 1 or"):
        meeting.patience_s()


@pytest.mark.parametrize(("rank", "visible", "index"), [(3, 8, 3), (3, 1, 0), (5, 4, 1)])
def test_a_process_takes_a_gpu_that_it_sees(rank, visible, index, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    assert _device(rank) == torch.device("cuda", index)
    assert chosen == [torch.device("cuda", index)]


def test_a_process_that_could_take_several_gpus_must_know_which(port, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert "LOCAL_RANK" not in os.environ
    with pytest.raises(UserError, match=r"^LOCAL_RANK is not set, and .* has 4 GPUs"):
        _device(0)
