"""A judge's scores, of which only a block exists at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from idlm_ds.build.judges import open_judge
from idlm_ds.metrics import judge as module
from idlm_ds.metrics.judge import Judge

from .judges import CONTEXT, WORDS, bigram_judge, save_judge

TEXTS = ["a b c d e", "b", "c <eos> d e <eos> f", "f f f f f f f f f f f f f f f", "", "e d"]
V = len(WORDS)


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Judge:
    return open_judge(save_judge(tmp_path_factory.mktemp("judges") / "tiny"))


@contextmanager
def watched(judge: Judge) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of the scores that the judge computes, in order."""
    shapes: list[tuple[int, ...]] = []
    head = judge.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda m, x, y: shapes.append(tuple(y.shape)))
    yield shapes
    hook.remove()


@pytest.mark.parametrize(
    ("most", "texts", "width"),
    [(4 * CONTEXT * V, 4, CONTEXT), (CONTEXT * V, 1, CONTEXT), (5 * V, 1, 5), (1, 1, 1)],
)
def test_no_more_scores_exist_at_a_time_than_are_allowed(most, texts, width, judge, monkeypatch):
    wanted, counts = judge.score(TEXTS)
    monkeypatch.setitem(module.LOGITS, "cpu", most)
    with watched(judge) as shapes:
        nats, tokens = judge.score(TEXTS)
    assert tokens.equal(counts)
    torch.testing.assert_close(nats, wanted, rtol=0, atol=1e-5)
    assert max(b * w for b, w, _ in shapes) == texts * width
    assert sum(b * w for b, w, _ in shapes) == len(TEXTS) * CONTEXT


def test_the_trunk_runs_once_for_all_blocks_of_a_text(judge, monkeypatch):
    monkeypatch.setitem(module.LOGITS, "cpu", 5 * V)
    calls = []
    hook = judge.model.transformer.h[0].register_forward_hook(lambda *_: calls.append(1))
    judge.score(TEXTS)
    hook.remove()
    assert len(calls) == len(TEXTS)
    assert "forward" not in vars(judge.model.transformer)


def test_a_model_that_scores_all_positions_at_once_is_still_a_judge(monkeypatch):
    monkeypatch.setitem(module.LOGITS, "cpu", 1)
    nats, tokens = bigram_judge(torch.zeros(4, 4)).score(["1 2 3", "1 2"])
    assert tokens.tolist() == [2, 1]
    assert nats.tolist() == pytest.approx([2 * 1.3862944, 1.3862944], abs=1e-6)


def test_a_judge_keeps_no_keys_and_values(judge):
    assert judge.model(input_ids=torch.tensor([[3, 4]])).to_tuple()[1:] == ()
