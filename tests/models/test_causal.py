import pytest
import torch
from transformers import GPT2Config

from idlm_ds.models.causal import CausalLM

from ..tolerances import assert_close

V, LENGTH = 11, 6


@pytest.fixture
def model(generator) -> CausalLM:
    config = GPT2Config(
        vocab_size=V,
        n_positions=LENGTH,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    made = CausalLM(config).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=0.3, generator=generator)
    return made


@pytest.fixture
def tokens(generator) -> torch.Tensor:
    return torch.randint(0, V, (3, LENGTH), generator=generator)


@torch.no_grad()
def everywhere(model: CausalLM, tokens: torch.Tensor, sigma: float = 0.0) -> torch.Tensor:
    every = torch.arange(tokens.numel())
    sigma_B = torch.full((len(tokens),), sigma)
    return model(tokens, sigma_B, lambda head: head.scores(every)).view(*tokens.shape, V)


def test_a_token_changes_answers_from_its_position_on_and_none_before(model, tokens):
    before = everywhere(model, tokens)
    changed = tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % V
    difference = (everywhere(model, changed) - before).abs().amax((0, 2))
    assert (difference[:3] == 0).all()
    assert (difference[3:] > 1e-3).all()


def test_scores_are_those_of_the_language_model_inside(model, tokens):
    with torch.no_grad():
        expected = model.lm(tokens).logits
    assert_close(everywhere(model, tokens), expected)


def test_answers_at_some_positions_are_a_slice_of_the_answers_everywhere(model, tokens):
    some = torch.tensor([0, 5, 6, 17])
    with torch.no_grad():
        got = model(tokens, torch.zeros(3), lambda head: head.scores(some))
    assert_close(got, everywhere(model, tokens).flatten(0, 1)[some])


def test_time_does_not_matter(model, tokens):
    assert everywhere(model, tokens, 5.0).equal(everywhere(model, tokens, 0.0))
