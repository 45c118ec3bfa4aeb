from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from idlm_ds.models.dit import DiT, DiTConfig
from idlm_ds.models.llada import LLaDA, LLaDAConfig
from tests import mixtures

from ..tolerances import assert_close
from . import reference
from .test_dit import by_the_book


def dit(hidden: int, blocks: int, heads: int) -> DiTConfig:
    """Sizes with the vocabulary of the releases: GPT-2's words and a mask."""
    return DiTConfig(vocab_size=50_258, hidden=hidden, blocks=blocks, heads=heads, dropout=0.1)


PUBLISHED = {
    "Duo, tiny": (dit(256, 8, 8), 33_789_010),
    "MDLM, tiny": (dit(512, 8, 8), 80_061_266),
    "small": (dit(768, 12, 12), 169_627_218),
    "medium": (dit(1024, 24, 16), 424_477_010),
    "SDTT, 0.9B": (dit(1536, 24, 16), 863_158_098),
    "LLaDA-8B": (LLaDAConfig(), 8_015_581_184),
}
SIGMA = torch.tensor([0.1, 5.0])


@pytest.mark.parametrize(("config", "count"), PUBLISHED.values(), ids=PUBLISHED)
def test_a_published_size_has_its_published_number_of_parameters(config, count):
    with torch.device("meta"):
        model = DiT(config) if isinstance(config, DiTConfig) else LLaDA(config)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("is_soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("is_timed", [False, True], ids=["without time", "with time"])
@torch.no_grad()
def test_a_published_diffusion_transformer_made_small_follows_its_formulas(
    is_timed, is_soft, generator
):
    small = replace(dit(768, 12, 12), vocab_size=13, hidden=24, blocks=2, heads=3)
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
    x = mixtures.of_rows(x.flatten(0, 1), (2, 6)) if is_soft else x
    got = model(x, SIGMA, lambda head: head.scores(torch.arange(12)))
    assert_close(got, expected.flatten(0, 1).float())
