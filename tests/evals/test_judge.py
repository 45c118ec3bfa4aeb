import hashlib
import math
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from idlm_ds.evals.judge import Judge, scored_targets

WORDS = ["<eos>", "<unk>", "<bos>", "a", "b", "c", "d", "e", "f"]
CONTEXT = 12
TEXTS = [
    "a b c d e",
    "b",
    "c <eos> d e <eos> f",
    "f f f f f f f f f f f f f f f",
    "",
    "e d",
    "a a a",
]


def save_judge(folder: Path, *, bos: bool = True) -> Path:
    split = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    split.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": "<eos>", "unk_token": "<unk>"} | ({"bos_token": "<bos>"} if bos else {})
    PreTrainedTokenizerFast(tokenizer_object=split, **special).save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(WORDS),
        n_positions=CONTEXT,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=2,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            # Wide enough that every position and token has its own probability.
            weight.copy_(0.5 * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


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


def ids_of(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


def test_score_equals_a_loop_over_tokens(folder):
    judge = Judge.load(folder)
    nats, tokens = judge.score(TEXTS)
    assert nats.dtype == torch.float64
    expected = [by_hand(judge, ids_of(text)[:CONTEXT]) for text in TEXTS]
    assert tokens.tolist() == [count for _, count in expected] == [4, 0, 4, CONTEXT - 1, 0, 1, 2]
    assert nats.tolist() == pytest.approx([value for value, _ in expected], abs=1e-5)


def test_a_bos_prefix_makes_the_first_token_a_target(folder):
    judge = Judge.load(folder, prefix_bos=True)
    nats, tokens = judge.score(TEXTS)
    rows = [[2, *ids_of(text)][:CONTEXT] for text in TEXTS]
    expected = [by_hand(judge, row) for row in rows]
    assert tokens.tolist() == [count for _, count in expected]
    assert nats.tolist() == pytest.approx([value for value, _ in expected], abs=1e-5)


@pytest.mark.parametrize("prefix_bos", [False, True])
def test_scores_do_not_depend_on_the_batch(folder, prefix_bos):
    judge = Judge.load(folder, prefix_bos=prefix_bos)
    nats, tokens = judge.score(TEXTS, batch=1)
    for batch in (3, 8):
        again, counts = judge.score(TEXTS, batch=batch)
        assert counts.tolist() == tokens.tolist()
        torch.testing.assert_close(again, nats, rtol=0, atol=1e-5)


def test_a_judge_that_knows_nothing_has_perplexity_of_its_vocabulary(folder):
    judge = Judge.load(folder)
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


def test_the_name_holds_the_hash_of_the_weights(folder):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert Judge.load(folder).name == f"tiny@{digest[:12]}"


def test_no_texts_give_no_scores(folder):
    nats, tokens = Judge.load(folder).score([])
    assert (len(nats), len(tokens)) == (0, 0)


def test_a_folder_that_cannot_judge_is_refused_by_name(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        Judge.load(tmp_path / "nowhere")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        copy = tmp_path / f"without-{name}"
        shutil.copytree(folder, copy)
        (copy / name).unlink()
        with pytest.raises(FileNotFoundError, match=r"safetensors" if "model" in name else name):
            Judge.load(copy)


def test_a_bos_that_does_not_exist_is_refused(tmp_path):
    folder = save_judge(tmp_path / "no-bos", bos=False)
    with pytest.raises(ValueError, match="has no BOS"):
        Judge.load(folder, prefix_bos=True)


def test_a_batch_of_nothing_is_refused(folder):
    with pytest.raises(ValueError, match="batch=0"):
        Judge.load(folder).score(["a"], batch=0)
