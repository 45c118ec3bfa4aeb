from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from idlm_ds.models.dit import DiT, DiTConfig
from idlm_ds.models.llada import LLaDA
from idlm_ds.models.sizes import PUBLISHED
from idlm_ds.tensor_types import SoftInput

from ..tolerances import assert_close
from . import reference
from .test_dit import by_the_book

PARAMETERS = {
    "dit-tiny-duo": 33_789_010,
    "dit-tiny-mdlm": 80_061_266,
    "dit-small": 169_627_218,
    "dit-medium": 424_477_010,
    "dit-large": 863_158_098,
    "llada-8b": 8_015_581_184,
}
SIGMA = torch.tensor([0.1, 5.0])


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_size_has_its_published_number_of_parameters(name):
    config = PUBLISHED[name]
    with torch.device("meta"):
        model = DiT(config) if isinstance(config, DiTConfig) else LLaDA(config)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("is_soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("is_timed", [False, True], ids=["without time", "with time"])
@torch.no_grad()
def test_a_published_diffusion_transformer_made_small_follows_its_formulas(
    is_timed, is_soft, generator
):
    small = replace(PUBLISHED["dit-small"], vocab_size=13, hidden=24, blocks=2, heads=3)
    model = DiT(replace(small, time_conditioning=is_timed)).eval()
    for name, weight in model.named_parameters():
        weight.normal_(generator=generator)
        weight.mul_(0.3 if weight.dim() == 1 else weight.shape[1] ** -0.5)
        if "norm" in name:
            weight.add_(1)
    x = torch.randint(0, 13, (2, 6), generator=generator)
    if is_soft:
        x = 3 * torch.randn(2, 6, 13, generator=generator)
    # Every position gets a word of its own: the one it was shown, or the mean of a mixture.
    weights = model.state_dict()
    shown = reference.embedded(weights["vocab_embed.embedding"].double(), x)
    weights["vocab_embed.embedding"] = shown.flatten(0, 1)
    book = SimpleNamespace(config=model.config, state_dict=lambda: weights)
    expected = by_the_book(book, torch.arange(12).view(2, 6), SIGMA)
    assert expected.std() > 0.5
    x = SoftInput(x.flatten(0, 1), (2, 6)) if is_soft else x
    got = model(x, SIGMA, lambda head: head.scores(torch.arange(12)))
    assert_close(got, expected.flatten(0, 1).float())
