import hashlib
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from idlm_ds.build.judges import open_judge
from idlm_ds.metrics.accumulate import PerplexityAccumulator
from idlm_ds.metrics.judge import Judge, scored_targets

from .judges import CONTEXT, WORDS, bigram_judge, ids_of, save_judge

TEXTS = [
    "a b c d e",
    "b",
    "c <eos> d e <eos> f",
    "f f f f f f f f f f f f f f f",
    "",
    "e d",
    "a a a",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_judge(tmp_path_factory.mktemp("judges") / "tiny")


def by_hand(judge: Judge, ids: list[int], *, first: int = 1) -> tuple[float, int]:
    """One forward pass a target, the EOS rule spelt out."""
    nats, count, seen_eos = 0.0, 0, ids[:first].count(0)
    for i in range(first, len(ids)):
        seen_eos += ids[i] == 0
        if ids[i] == 0 and seen_eos > 1:
            continue
        with torch.no_grad():
            logits = judge.model(input_ids=torch.tensor([ids[:i]])).logits[0, -1]
        nats -= torch.log_softmax(logits.double(), -1)[ids[i]].item()
        count += 1
    return nats, count


def test_score_equals_a_loop_over_tokens(folder):
    judge = open_judge(folder)
    nats, tokens = judge.score(TEXTS)
    assert nats.dtype == torch.float64
    expected = [by_hand(judge, ids_of(text)[:CONTEXT]) for text in TEXTS]
    assert tokens.tolist() == [count for _, count in expected] == [4, 0, 4, CONTEXT - 1, 0, 1, 2]
    assert nats.tolist() == pytest.approx([value for value, _ in expected], abs=1e-5)


def test_a_bos_prefix_makes_the_first_token_a_target(folder):
    judge = open_judge(folder, prefix_bos=True)
    nats, tokens = judge.score(TEXTS)
    rows = [[2, *ids_of(text)][:CONTEXT] for text in TEXTS]
    expected = [by_hand(judge, row) for row in rows]
    assert tokens.tolist() == [count for _, count in expected]
    assert nats.tolist() == pytest.approx([value for value, _ in expected], abs=1e-5)


@pytest.mark.parametrize("prefix_bos", [False, True])
def test_scores_do_not_depend_on_the_batch(folder, prefix_bos):
    judge = open_judge(folder, prefix_bos=prefix_bos)
    nats, tokens = judge.score(TEXTS, batch=1)
    for batch in (3, 8):
        again, counts = judge.score(TEXTS, batch=batch)
        assert counts.tolist() == tokens.tolist()
        torch.testing.assert_close(again, nats, rtol=0, atol=1e-5)


def test_a_judge_that_knows_nothing_has_perplexity_of_its_vocabulary(folder):
    judge = open_judge(folder)
    for weight in judge.model.parameters():
        weight.zero_()
    nats, tokens = judge.score(["a b c <eos> d", "e f"])
    assert tokens.tolist() == [4, 1]
    assert (nats / tokens).tolist() == pytest.approx([math.log(len(WORDS))] * 2, abs=1e-6)


def test_the_first_eos_counts_and_later_ones_do_not():
    ids = torch.tensor([[5, 0, 6, 0, 7, 0, 0, 0], [0, 5, 0, 6, 7, 0, 0, 0]])
    text = torch.tensor([[True] * 6 + [False] * 2, [True] * 5 + [False] * 3])
    expected = torch.tensor([[0, 1, 1, 0, 1, 0, 0, 0], [0, 1, 0, 1, 1, 0, 0, 0]]).bool()
    assert scored_targets(ids, text, eos_id=0).equal(expected)


def test_padding_that_looks_like_eos_is_never_scored():
    ids = torch.tensor([[5, 6, 0, 0]])
    text = torch.tensor([[True, True, False, False]])
    assert scored_targets(ids, text, eos_id=0).tolist() == [[False, True, False, False]]


def test_a_prefix_that_is_eos_leaves_the_first_eos_to_the_text():
    ids = torch.tensor([[0, 5, 0, 6, 0]])
    text = torch.tensor([[False, True, True, True, True]])
    assert scored_targets(ids, text, eos_id=0).tolist() == [[False, True, True, True, False]]


def test_without_an_eos_every_target_counts():
    ids = torch.zeros(1, 4, dtype=torch.long)
    keep = scored_targets(ids, torch.ones(1, 4, dtype=torch.bool), eos_id=None)
    assert keep.tolist() == [[False, True, True, True]]


TABLES = {
    "empty": ([], [], []),
    "one token": ([5], [0], [0]),
    "one EOS": ([0], [0], [0]),
    "no EOS": ([5, 6, 7], [0, 1, 1], [0, 1, 1]),
    "text after an EOS": ([5, 0, 6, 0, 7], [0, 1, 1, 0, 1], [0, 1, 0, 0, 0]),
    "a run of EOS": ([5, 6, 0, 0, 0, 7], [0, 1, 1, 0, 0, 1], [0, 1, 1, 0, 0, 0]),
    "framed by EOS": ([0, 5, 6, 0], [0, 1, 1, 0], [0, 1, 1, 1]),
    "framed, with text after it": ([0, 5, 0, 6, 0], [0, 1, 0, 1, 0], [0, 1, 1, 0, 0]),
    "EOS only": ([0, 0, 0], [0, 0, 0], [0, 1, 0]),
}


@pytest.mark.parametrize(("ids", "published", "strict"), TABLES.values(), ids=TABLES)
def test_both_masks_by_hand(ids, published, strict):
    # Two positions of padding that look like EOS.
    row = torch.tensor([[*ids, 0, 0]])
    text = torch.tensor([[*[True] * len(ids), False, False]])
    for masking, expected in (("published", published), ("strict", strict)):
        keep = scored_targets(row, text, eos_id=0, masking=masking)
        assert keep.long().tolist() == [[*expected, 0, 0]]


def test_strict_leaves_the_frame_out_after_a_prefix_too():
    ids = torch.tensor([[2, 0, 5, 0, 6]])
    text = torch.tensor([[False, True, True, True, True]])
    keep = scored_targets(ids, text, eos_id=0, masking="strict")
    assert keep.long().tolist() == [[0, 0, 1, 1, 0]]


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_gen_ppl_by_hand_whatever_the_batch(batch):
    # After a 1 comes 2 or 3 with one half each, after 2 an EOS with 1/4, after the rest anything.
    table = torch.zeros(4, 4)
    table[1] = torch.tensor([-math.inf, -math.inf, 0.0, 0.0])
    table[2] = torch.tensor([0.0, math.log(3.0), -math.inf, -math.inf])
    texts = ["1 2 0 0 1 2", "1 3", "", "3", "2 0 3"]
    half, quarter = math.log(2), math.log(4)
    judge = bigram_judge(table)
    nats, tokens = judge.score(texts, batch=batch)
    assert nats.tolist() == pytest.approx(
        [half + 2 * quarter + half, half, 0, 0, 2 * quarter], abs=1e-6
    )
    assert tokens.tolist() == [4, 1, 0, 0, 2]
    strict, counts = judge.score(texts, batch=batch, masking="strict")
    assert strict.tolist() == pytest.approx([half + quarter, half, 0, 0, quarter], abs=1e-6)
    assert counts.tolist() == [2, 1, 0, 0, 1]
    seen = PerplexityAccumulator()
    seen.update(nats, tokens)
    # 6, 1 and 4 bits.
    assert seen.compute().value == pytest.approx(2 ** (11 / 7), rel=1e-6)


def test_the_folder_says_whether_a_bos_goes_in_front(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "prefixed")
    path = copy / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_bos_token": True}))
    assert not open_judge(folder).prefix_bos
    assert open_judge(copy).prefix_bos
    assert not open_judge(copy, prefix_bos=False).prefix_bos


def test_a_folder_with_a_weight_missing_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "incomplete")
    weights = load_file(copy / "model.safetensors")
    del weights["transformer.h.1.ln_2.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights, such as transformer\.h\.1\.ln_2"):
        open_judge(copy)


def test_the_name_holds_the_hash_of_the_weights(folder):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert open_judge(folder).name == f"tiny@{digest[:12]}"


def test_no_texts_give_no_scores(folder):
    nats, tokens = open_judge(folder).score([])
    assert (len(nats), len(tokens)) == (0, 0)


def test_a_folder_that_cannot_judge_is_refused_by_name(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        open_judge(tmp_path / "nowhere")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        copy = tmp_path / f"without-{name}"
        shutil.copytree(folder, copy)
        (copy / name).unlink()
        with pytest.raises(FileNotFoundError, match=r"safetensors" if "model" in name else name):
            open_judge(copy)


def test_a_bos_that_does_not_exist_is_refused(tmp_path):
    folder = save_judge(tmp_path / "no-bos", bos=False)
    with pytest.raises(ValueError, match="has no BOS"):
        open_judge(folder, prefix_bos=True)


def test_a_batch_of_nothing_is_refused(folder):
    with pytest.raises(ValueError, match="batch=0"):
        open_judge(folder).score(["a"], batch=0)
