import pytest
import torch

from idlm_ds.build.judges import open_judge
from idlm_ds.metrics.features import last_token_features

from .judges import ids_of, save_judge

TEXTS = ["a b c d e", "b", "", "f f f f f f f f f f f f f f f", "e d a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_judge(tmp_path_factory.mktemp("judges") / "tiny")


@pytest.mark.parametrize("prefix", [[], [2]])
def test_a_feature_is_the_state_at_the_last_token_that_was_read(folder, prefix):
    judge = open_judge(folder, prefix_bos=bool(prefix))
    features = last_token_features(judge, TEXTS, max_tokens=4, batch=2)
    for text, vector in zip(TEXTS, features.vectors, strict=True):
        # An empty text is an EOS, which the prefix makes needless.
        ids = [*prefix, *ids_of(text)[:4]] or [0]
        with torch.no_grad():
            output = judge.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        torch.testing.assert_close(vector, output.hidden_states[-1][0, -1], rtol=0, atol=1e-5)


def test_features_do_not_depend_on_the_batch(folder):
    judge = open_judge(folder)
    alone = last_token_features(judge, TEXTS, batch=1).vectors
    together = last_token_features(judge, TEXTS, batch=8).vectors
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_features_say_what_they_are(folder):
    judge = open_judge(folder)
    features = last_token_features(judge, TEXTS, max_tokens=4)
    assert features.description == (
        f"hidden state of {judge.name} at the last of the first 4 tokens, after the last norm"
    )
