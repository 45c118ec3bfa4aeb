"""Ranks agree on a failure through a store, without a process group."""

import json

import pytest
import torch.distributed as dist

from idlm_ds.engine import failure
from idlm_ds.engine.failure import Channel

TEXT = "error: data.corpus: no such file\n"


@pytest.fixture
def as_rank(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(failure, "SAID_S", 0.0)
    return lambda rank: monkeypatch.setenv("RANK", str(rank))


@pytest.fixture
def channel():
    return Channel(dist.HashStore())


def test_an_error_of_one_rank_is_that_ranks_to_print(as_rank, channel):
    as_rank(2)
    assert channel.report(2, TEXT, is_expected=True) == (2, True)
    # What follows from it elsewhere is no news, whatever it looks like there.
    as_rank(1)
    assert channel.report(1, "Traceback: connection closed", is_expected=False) == (2, False)
    as_rank(0)
    assert channel.report(1, "Traceback: connection closed", is_expected=False) == (2, False)


def test_an_error_that_all_ranks_have_is_printed_by_the_first_alone(as_rank, channel, monkeypatch):
    monkeypatch.setattr(failure, "SAID_S", 5.0)
    as_rank(0)
    assert channel.report(2, TEXT, is_expected=True) == (2, False)
    as_rank(1)
    assert channel.report(2, TEXT, is_expected=True) == (2, False)
    as_rank(2)
    assert channel.report(2, "error: another\n", is_expected=True) == (2, True)


def test_an_unexpected_error_keeps_its_traceback_on_the_first_rank_that_has_it(as_rank, channel):
    as_rank(1)
    assert channel.report(1, "Traceback", is_expected=False) == (1, True)
    as_rank(0)
    assert channel.report(1, "Traceback", is_expected=False) == (1, False)


def test_the_exit_code_is_that_of_the_first_failure(as_rank, channel):
    as_rank(1)
    channel.report(6, "error: the loss is not finite\n", is_expected=True)
    as_rank(2)
    assert channel.report(2, TEXT, is_expected=True) == (6, True)


def test_without_a_store_every_rank_prints_its_own_error(as_rank):
    class Gone(dist.HashStore):
        def compare_set(self, *_):
            raise dist.DistNetworkError("connection was closed")

    as_rank(1)
    assert Channel(Gone()).report(2, TEXT, is_expected=True) == (2, True)


@pytest.mark.parametrize("text", [TEXT, None])
def test_torchrun_finds_what_was_printed(text, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    failure.record(text)
    if text is None:
        assert not (tmp_path / "error.json").exists()
    else:
        message = json.loads((tmp_path / "error.json").read_text())["message"]
        assert message["extraInfo"]["py_callstack"] == TEXT
        assert message["extraInfo"]["timestamp"].isdigit()


def test_a_rank_that_another_one_ends_leaves_that_ones_error_for_torchrun(
    as_rank, channel, monkeypatch, tmp_path
):
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    as_rank(1)
    channel.report(2, TEXT, is_expected=True, shown="error (rank 1 on n2): no such file")
    assert not path.exists()
    as_rank(0)
    channel.report(1, "Traceback: connection closed", is_expected=False, shown="Traceback")
    message = json.loads(path.read_text())["message"]["message"]
    assert message == "error (rank 1 on n2): no such file"
