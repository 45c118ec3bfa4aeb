"""A latent beside the tokens of a network."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from idlm_ds.models.dit import DiT, DiTConfig
from idlm_ds.models.llada import LLaDA, LLaDAConfig
from idlm_ds.tensor_types import LatentInput, NetworkInput
from tests import mixtures

V, BATCH, LENGTH, Z, RATE = 11, 2, 5, 3, 4.0
SIZES = {"vocab_size": V, "hidden": 16, "blocks": 1, "heads": 2}
NETWORKS = {
    "dit": (DiT, DiTConfig(**SIZES, cond=8), "", "vocab_embed.embedding"),
    "llada": (LLaDA, LLaDAConfig(**SIZES, ffn=24), "model.transformer.", "wte.weight"),
}
SIGMA = torch.ones(BATCH)


@pytest.fixture(params=NETWORKS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tokens(generator) -> Tensor:
    return torch.randint(0, V, (BATCH, LENGTH), generator=generator)


@pytest.fixture
def z(generator) -> Tensor:
    return torch.randn(BATCH, LENGTH, Z, generator=generator)


def made(kind: str, **fields: object) -> tuple[nn.Module, nn.Module]:
    """A network without a latent, and the same one with a latent."""
    network, config, _, _ = NETWORKS[kind]
    config = replace(config, **fields)
    plain = network(config)
    latent = network(replace(config, latent=Z, latent_rate=RATE))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in latent.parameters():
            weight.normal_(std=0.3, generator=generator)
        plain.load_state_dict(latent.state_dict(), strict=False)
    return plain, latent


def answers(network: nn.Module, x: NetworkInput) -> Tensor:
    every = torch.arange(BATCH * LENGTH)
    return network(x, SIGMA, lambda head: head.scores(every)).view(BATCH, LENGTH, V)


def weight_of(network: nn.Module, kind: str) -> Tensor:
    return network.get_parameter(f"{NETWORKS[kind][2]}latent_map.weight")


def test_without_a_latent_the_network_has_no_projection_of_one(kind):
    network, config, _, _ = NETWORKS[kind]
    assert not [name for name, _ in network(config).named_parameters() if "latent" in name]


def test_a_latent_is_projected_scaled_and_added_to_the_embedding_of_each_token(kind, z):
    """Words of their own, whose embeddings have the contribution added, give the same answers."""
    plain, latent = made(kind)
    tokens = torch.arange(BATCH * LENGTH).view(BATCH, LENGTH)
    added = RATE * z @ weight_of(latent, kind).detach().T
    _, _, prefix, table = NETWORKS[kind]
    with torch.no_grad():
        plain.get_parameter(prefix + table)[: BATCH * LENGTH] += added.flatten(0, 1)
    got, wanted = answers(latent, LatentInput(tokens, z)), answers(plain, tokens)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert (got - answers(latent, LatentInput(tokens, 0 * z))).abs().max() > 0.1


def test_a_latent_of_zeros_is_none(kind, tokens, z):
    plain, latent = made(kind)
    assert answers(latent, LatentInput(tokens, 0 * z)).equal(answers(plain, tokens))


def test_a_latent_goes_beside_mixtures_of_tokens_too(kind, tokens, z):
    _, latent = made(kind)
    hard = 200.0 * nn.functional.one_hot(tokens.flatten(), V)
    sure = mixtures.of_rows(hard, (BATCH, LENGTH))
    got = answers(latent, LatentInput(sure, z))
    torch.testing.assert_close(got, answers(latent, LatentInput(tokens, z)))
    with pytest.raises(TypeError, match="mixture"):
        LatentInput(sure, z)[:1]


@pytest.mark.parametrize("is_frugal", [False, True], ids=["kept", "computed twice"])
def test_the_gradient_reaches_the_projection_where_a_latent_enters(kind, tokens, z, is_frugal):
    _, latent = made(kind, checkpoint_activations=is_frugal)
    z[:, :, 1] = 0.0
    answers(latent, LatentInput(tokens, z)).square().sum().backward()
    gradient = weight_of(latent, kind).grad
    assert gradient[:, [0, 2]].abs().min() > 0
    assert (gradient[:, 1] == 0).all()


def test_the_rate_scales_what_is_added_but_no_gradient(kind, tokens, z):
    """Twice the rate and half the weight: Adam moves it twice as far, clipping sees no more."""
    _, slow = made(kind)
    network, config, _, _ = NETWORKS[kind]
    fast = network(replace(config, latent=Z, latent_rate=2 * RATE))
    fast.load_state_dict(slow.state_dict())
    with torch.no_grad():
        weight_of(fast, kind).div_(2)
    given = LatentInput(tokens, z)
    outputs = [answers(net, given) for net in (slow, fast)]
    torch.testing.assert_close(*outputs)
    for output in outputs:
        output.square().sum().backward()
    gradients = [weight_of(net, kind).grad for net in (slow, fast)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0.1


def test_a_latent_takes_the_precision_of_the_network(kind, tokens, z):
    _, latent = made(kind)
    wanted = answers(latent, LatentInput(tokens, z))
    got = answers(latent.bfloat16(), LatentInput(tokens, z))
    assert got.dtype == torch.float32
    assert nn.functional.cosine_similarity(got.flatten(), wanted.flatten(), dim=0) > 0.98


def test_a_missing_and_a_superfluous_latent_are_refused(kind, tokens, z):
    plain, latent = made(kind)
    with pytest.raises(ValueError, match="^latent: the network needs one, but is shown tokens"):
        answers(latent, tokens)
    with pytest.raises(ValueError, match="^latent: the network has none, but is shown one"):
        answers(plain, LatentInput(tokens, z))
