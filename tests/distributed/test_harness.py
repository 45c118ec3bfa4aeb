"""The harness itself: it reports the rank that failed and leaves nothing behind."""

import os
import time

import pytest
import torch

from idlm_ds.engine.dist import World

from .harness import RankFailure, run_ranks

pytestmark = pytest.mark.dist


def _sum(world: World, offset: int) -> dict[str, object]:
    return {
        "rank": world.rank,
        "sum": world.sum(torch.tensor([world.rank + offset])),
        "pid": os.getpid(),
    }


def test_ranks_talk_and_answer_in_order():
    answers = run_ranks(_sum, 2, 10)
    assert [a["rank"] for a in answers] == [0, 1]
    assert all(a["sum"].item() == 21 for a in answers)
    assert answers[0]["pid"] != answers[1]["pid"]


def _one_raises(world: World) -> None:
    print(f"hello from {world.rank}, {os.getpid()}")
    if world.rank == 1:
        raise ValueError("the real reason")
    world.barrier()


def test_a_rank_that_raises_fails_the_test_with_its_traceback():
    began = time.monotonic()
    with pytest.raises(RankFailure) as failure:
        run_ranks(_one_raises, 2)
    assert time.monotonic() - began < 30, "the peer was waited for"
    text = str(failure.value)
    assert text.splitlines()[-1] == "ValueError: the real reason"
    assert "in _one_raises" in text


def _one_hangs(world: World) -> None:
    print(f"pid {os.getpid()}", flush=True)
    if world.rank == 0:
        time.sleep(1000)


def test_a_hang_is_killed_and_shows_where_it_hung():
    began = time.monotonic()
    with pytest.raises(RankFailure) as failure:
        run_ranks(_one_hangs, 2, timeout_s=3.0)
    assert time.monotonic() - began < 15
    text = str(failure.value)
    assert "still ran after 3 s" in text
    assert "in _one_hangs" in text
    for line in text.splitlines():
        if line.startswith("pid "):
            with pytest.raises(ProcessLookupError):
                os.kill(int(line.removeprefix("pid ")), 0)
